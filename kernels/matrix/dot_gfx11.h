// SPDX-License-Identifier: Apache-2.0
// RDNA 3 and 3.5 with few rows: v_dot2_f32_{bf16,f16}. No matrix instruction: a lane owns a key (or a dim of the
// output) and takes the four rows in turn. 8 clocks a key and product at head 128, whereas v_wmma takes 16 for up to 16
// rows. Queries are the same for all lanes, and so are the probabilities once they are gathered from the keys' lanes.
#pragma once

#include "../target/words.h"
#include "mma.h"

namespace rocmforge {

template <class T>
struct DotGfx11 {
  using Element = T;
  static constexpr int kWave = 32, kM = 32, kN = 4, kK = 8, kA = 8, kB = 32, kC = 4;
  static constexpr bool kKeysOnRows = true, kHalfExchange = false, kGathered = true;
  static constexpr int kStats = 4;

  RF_DEVICE static constexpr int a_row(int l, int) { return l; }
  RF_DEVICE static constexpr int a_k(int, int e) { return e; }
  RF_DEVICE static constexpr int b_k(int, int e) { return e % kK; }
  RF_DEVICE static constexpr int b_col(int, int e) { return e / kK; }
  RF_DEVICE static constexpr int c_row(int l, int) { return l; }
  RF_DEVICE static constexpr int c_col(int, int r) { return r; }
  RF_DEVICE static constexpr int stat(int r) { return r; }
  RF_DEVICE static constexpr int k_group(int) { return 0; }
  RF_DEVICE static constexpr int query_element(int i) { return i % kK; }

#if defined(__GFX11__)
  using A = Vec<T, kA>;
  using B = Vec<T, kB>;
  using C = Vec<float, kC>;
  RF_DEVICE static C mma(const A& a, const B& b, C c) {
    using B2 = __bf16 __attribute__((ext_vector_type(2)));
    using H2 = _Float16 __attribute__((ext_vector_type(2)));
    const auto keys = words_of(a);
    const auto rows = words_of(b);
    RF_UNROLL
    for (int i = 0; i < kK / 2; ++i) {
      RF_UNROLL
      for (int r = 0; r < kN; ++r) {
        const uint32_t key = keys.word[i], row = rows.word[r * kK / 2 + i];
        if constexpr (__is_same(T, bf16))
          c[r] = __builtin_amdgcn_fdot2_f32_bf16(__builtin_bit_cast(B2, key), __builtin_bit_cast(B2, row), c[r], false);
        else c[r] = __builtin_amdgcn_fdot2(__builtin_bit_cast(H2, key), __builtin_bit_cast(H2, row), c[r], false);
      }
    }
    return c;
  }
#endif
};

}  // namespace rocmforge
