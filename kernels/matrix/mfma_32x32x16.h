// SPDX-License-Identifier: Apache-2.0
// CDNA 4: v_mfma_f32_32x32x16_{bf16,f16}. Layout: as the 32x32x8 form, eight elements a lane.
#pragma once

#include "mma.h"

namespace rocmforge {

template <class T>
struct Mfma32x32x16 {
  using Element = T;
  static constexpr int kWave = 64, kM = 32, kN = 32, kK = 16, kA = 8, kB = 8, kC = 16;
  static constexpr bool kKeysOnRows = true, kHalfExchange = false;
  static constexpr int kStats = 1;

  RF_DEVICE static constexpr int a_row(int l, int) { return l % 32; }
  RF_DEVICE static constexpr int a_k(int l, int e) { return 8 * (l / 32) + e; }
  RF_DEVICE static constexpr int b_k(int l, int e) { return 8 * (l / 32) + e; }
  RF_DEVICE static constexpr int b_col(int l, int) { return l % 32; }
  RF_DEVICE static constexpr int c_row(int l, int r) { return 8 * (r / 4) + 4 * (l / 32) + r % 4; }
  RF_DEVICE static constexpr int c_col(int l, int) { return l % 32; }
  RF_DEVICE static constexpr int stat(int) { return 0; }
  RF_DEVICE static constexpr int k_group(int l) { return l / 32; }
  RF_DEVICE static constexpr int query_element(int i) { return i; }

#if defined(__gfx950__)
  using A = Vec<T, kA>;
  using C = Vec<float, kC>;
  RF_DEVICE static C mma(const A& a, const A& b, const C& c) {
    using F16 = float __attribute__((ext_vector_type(16)));
    using B8 = __bf16 __attribute__((ext_vector_type(8)));
    using H8 = _Float16 __attribute__((ext_vector_type(8)));
    const F16 acc = __builtin_bit_cast(F16, c);
    if constexpr (__is_same(T, bf16)) {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_32x32x16_bf16(
                                       __builtin_bit_cast(B8, a), __builtin_bit_cast(B8, b), acc, 0, 0, 0));
    } else {
      return __builtin_bit_cast(C, __builtin_amdgcn_mfma_f32_32x32x16_f16(
                                       __builtin_bit_cast(H8, a), __builtin_bit_cast(H8, b), acc, 0, 0, 0));
    }
  }
#endif
};

}  // namespace rocmforge
