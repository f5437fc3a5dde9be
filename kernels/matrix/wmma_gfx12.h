// SPDX-License-Identifier: Apache-2.0
// RDNA 4: v_wmma_f32_16x16x16_{bf16,f16} in wave32, 16 clocks. Any order of k that A and B share is right; this one
// makes a lane's elements contiguous.
#pragma once

#include "contiguous.h"

namespace rocmforge {

template <class T>
struct WmmaGfx12 : ContiguousK<T, 32, 16, 16, 16, 8> {
  using Base = ContiguousK<T, 32, 16, 16, 16, 8>;
  using typename Base::A;
  using typename Base::C;
  RF_DEVICE static constexpr int c_row(int l, int r) { return 8 * (l / 16) + r; }

#if defined(__GFX12__)
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F8 = float __attribute__((ext_vector_type(8)));
    using S8 = short __attribute__((ext_vector_type(8)));
    using H8 = _Float16 __attribute__((ext_vector_type(8)));
    const F8 acc = __builtin_bit_cast(F8, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(C, __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(__builtin_bit_cast(S8, a),
                                                                                     __builtin_bit_cast(S8, b), acc));
    } else {
      return __builtin_bit_cast(C, __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(__builtin_bit_cast(H8, a),
                                                                                    __builtin_bit_cast(H8, b), acc));
    }
  }
#endif
};

}  // namespace rocmforge
