// SPDX-License-Identifier: Apache-2.0
// CDNA 4: v_mfma_f32_16x16x32_{bf16,f16}, 16 clocks: the 16x16x16 form with twice the depth. A wave's two score tiles
// make one operand of the second product. Layout: as the 16x16x16 form, eight elements a lane.
#pragma once

#include "contiguous.h"

namespace rocmforge {

template <class T>
struct Mfma16x16x32 : ContiguousK<T, 64, 16, 16, 32, 8> {
  using Base = ContiguousK<T, 64, 16, 16, 32, 8>;
  using typename Base::A;
  using typename Base::C;
  RF_DEVICE static constexpr int c_row(int l, int r) { return 4 * (l / 16) + r; }

#if defined(__gfx950__)
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F4 = float __attribute__((ext_vector_type(4)));
    using B8 = __bf16 __attribute__((ext_vector_type(8)));
    using H8 = _Float16 __attribute__((ext_vector_type(8)));
    const F4 acc = __builtin_bit_cast(F4, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_16x16x32_bf16(__builtin_bit_cast(B8, a),
                                                                           __builtin_bit_cast(B8, b), acc, 0, 0, 0));
    } else {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_16x16x32_f16(__builtin_bit_cast(H8, a),
                                                                          __builtin_bit_cast(H8, b), acc, 0, 0, 0));
    }
  }
#endif
};

}  // namespace rocmforge
