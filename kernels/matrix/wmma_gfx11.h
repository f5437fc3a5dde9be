// SPDX-License-Identifier: Apache-2.0
// RDNA 3 and 3.5: v_wmma_f32_16x16x16_{bf16,f16} in wave32, 32 clocks. Lanes 16-31 must hold copies of the operands of
// lanes 0-15, and the rows of C interleave between the halves. Layout: AMD matrix instruction calculator.
#pragma once

#include "contiguous.h"

namespace rocmforge {

template <class T>
struct WmmaGfx11 : ContiguousK<T, 32, 16, 16, 16, 16> {
  using Base = ContiguousK<T, 32, 16, 16, 16, 16>;
  using typename Base::A;
  using typename Base::C;
  static constexpr bool kHalfExchange = true;
  RF_DEVICE static constexpr int c_row(int l, int r) { return 2 * r + l / 16; }

#if defined(__GFX11__)
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F8 = float __attribute__((ext_vector_type(8)));
    using S16 = short __attribute__((ext_vector_type(16)));
    using H16 = _Float16 __attribute__((ext_vector_type(16)));
    const F8 acc = __builtin_bit_cast(F8, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(
          C, __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(S16, a), __builtin_bit_cast(S16, b), acc));
    } else {
      return __builtin_bit_cast(
          C, __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(__builtin_bit_cast(H16, a), __builtin_bit_cast(H16, b), acc));
    }
  }
#endif
};

}  // namespace rocmforge
