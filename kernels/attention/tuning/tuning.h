// SPDX-License-Identifier: Apache-2.0
// What the vendors' tunings start from.
#pragma once

#include "../../target/device.h"
#include "../schedule/words.h"
#include "choice.h"

namespace rocmforge {

// Of a matrix core: decode<P, QueryTiles>(), for up to so many tiles of rows, and prefill<P>() give the Choice for
// problem P. Some problems have another core than the target's: DecodeCore, PrefillCore.
template <template <class> class Mma>
struct Tuning;

template <template <class> class Mma, class P, int QueryTiles>
struct DecodeCore {
  using Type = Mma<typename P::Element>;
};
template <template <class> class Mma, class P>
struct PrefillCore {
  using Type = Mma<typename P::Element>;
};

// Rounds of heads: each takes memory for partial results (25 MB on an H200). Where there are several dies, each of them
// has heads of its own already (share_of).
inline constexpr int kRounds = kDies > 1 && !kHostTarget ? 1 : kMostRounds;

}  // namespace rocmforge
