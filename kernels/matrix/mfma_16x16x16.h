// SPDX-License-Identifier: Apache-2.0
// CDNA 2 and later: v_mfma_f32_16x16x16_{bf16_1k,f16}, 16 clocks. Layout: AMD matrix instruction calculator.
#pragma once

#include "contiguous.h"

namespace rocmforge {

template <class T>
struct Mfma16x16x16 : ContiguousK<T, 64, 16, 16, 16, 4> {
  using Base = ContiguousK<T, 64, 16, 16, 16, 4>;
  using typename Base::A;
  using typename Base::C;
  RF_DEVICE static constexpr int c_row(int l, int r) { return 4 * (l / 16) + r; }

#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__) || defined(__gfx9_4_generic__)
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F4 = float __attribute__((ext_vector_type(4)));
    using S4 = short __attribute__((ext_vector_type(4)));
    using H4 = _Float16 __attribute__((ext_vector_type(4)));
    const F4 acc = __builtin_bit_cast(F4, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(S4, a),
                                                                             __builtin_bit_cast(S4, b), acc, 0, 0, 0));
    } else {
      return __builtin_bit_cast(
          C, __builtin_amdgcn_mfma_f32_16x16x16f16(__builtin_bit_cast(H4, a), __builtin_bit_cast(H4, b), acc, 0, 0, 0));
    }
  }
#endif
};

}  // namespace rocmforge
