// SPDX-License-Identifier: Apache-2.0
// CDNA 4: v_mfma_f32_32x32x16_{bf16,f16}. Layout: as the 32x32x8 form, eight elements a lane.
#pragma once

#include "contiguous.h"

namespace rocmforge {

template <class T>
struct Mfma32x32x16 : ContiguousK<T, 64, 32, 32, 16, 8> {
  using Base = ContiguousK<T, 64, 32, 32, 16, 8>;
  using typename Base::A;
  using typename Base::C;
  RF_DEVICE static constexpr int c_row(int l, int r) { return 8 * (r / 4) + 4 * (l / 32) + r % 4; }

#if defined(__gfx950__)
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F16 = float __attribute__((ext_vector_type(16)));
    using B8 = __bf16 __attribute__((ext_vector_type(8)));
    using H8 = _Float16 __attribute__((ext_vector_type(8)));
    const F16 acc = __builtin_bit_cast(F16, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_32x32x16_bf16(__builtin_bit_cast(B8, a),
                                                                           __builtin_bit_cast(B8, b), acc, 0, 0, 0));
    } else {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_32x32x16_f16(__builtin_bit_cast(H8, a),
                                                                          __builtin_bit_cast(H8, b), acc, 0, 0, 0));
    }
  }
#endif
};

}  // namespace rocmforge
