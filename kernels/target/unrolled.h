// SPDX-License-Identifier: Apache-2.0
// Loops whose index is a compile-time constant in the body, and a choice between two types.
#pragma once

#include "device.h"

namespace rocmforge {

template <bool Condition, class Yes, class No>
struct Select {
  using Type = Yes;
};
template <class Yes, class No>
struct Select<false, Yes, No> {
  using Type = No;
};
template <bool Condition, class Yes, class No>
using SelectType = typename Select<Condition, Yes, No>::Type;

template <int I>
struct Index {
  static constexpr int value = I;
  RF_DEVICE constexpr operator int() const { return I; }
};

// Calls f(Index<I>) for I in [0, N).
template <int N, int I = 0, class F>
RF_DEVICE void unrolled(F&& f) {
  if constexpr (I < N) {
    f(Index<I>{});
    unrolled<N, I + 1>(f);
  }
}

}  // namespace rocmforge
