// SPDX-License-Identifier: Apache-2.0
// CDNA 4: v_mfma_f32_16x16x32_{bf16,f16}, 16 clocks: the 16x16x16 form with twice the depth. A wave's two score tiles
// make one operand of the second product. Layout: as the 16x16x16 form, eight elements a lane.
#pragma once

#include "mma.h"

namespace rocmforge {

template <class T>
struct Mfma16x16x32 {
  using Element = T;
  static constexpr int kWave = 64, kM = 16, kN = 16, kK = 32, kA = 8, kB = 8, kC = 4;
  static constexpr bool kKeysOnRows = true, kHalfExchange = false;
  static constexpr int kStats = 1;

  RF_DEVICE static constexpr int a_row(int l, int) { return l % 16; }
  RF_DEVICE static constexpr int a_k(int l, int e) { return 8 * (l / 16) + e; }
  RF_DEVICE static constexpr int b_k(int l, int e) { return 8 * (l / 16) + e; }
  RF_DEVICE static constexpr int b_col(int l, int) { return l % 16; }
  RF_DEVICE static constexpr int c_row(int l, int r) { return 4 * (l / 16) + r; }
  RF_DEVICE static constexpr int c_col(int l, int) { return l % 16; }
  RF_DEVICE static constexpr int stat(int) { return 0; }
  RF_DEVICE static constexpr int k_group(int l) { return l / 16; }
  RF_DEVICE static constexpr int query_element(int i) { return i; }

#if defined(__gfx950__)
  using A = Vec<T, kA>;
  using C = Vec<float, kC>;
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F4 = float __attribute__((ext_vector_type(4)));
    using B8 = __bf16 __attribute__((ext_vector_type(8)));
    using H8 = _Float16 __attribute__((ext_vector_type(8)));
    const F4 acc = __builtin_bit_cast(F4, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_16x16x32_bf16(
                                       __builtin_bit_cast(B8, a), __builtin_bit_cast(B8, b), acc, 0, 0, 0));
    } else {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_16x16x32_f16(
                                       __builtin_bit_cast(H8, a), __builtin_bit_cast(H8, b), acc, 0, 0, 0));
    }
  }
#endif
};

}  // namespace rocmforge
