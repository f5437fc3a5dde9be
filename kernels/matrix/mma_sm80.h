// SPDX-License-Identifier: Apache-2.0
// NVIDIA sm_80 and later: mma.sync.m16n8k16. Queries lie on A's rows, so two 8-key score tiles are one operand of the
// second product as they stand. Layout: PTX ISA, "Matrix fragments for mma.m16n8k16".
#pragma once

#include "mma.h"

namespace rocmforge {

template <class T>
struct MmaSm80 {
  using Element = T;
  static constexpr int kWave = 32, kM = 16, kN = 8, kK = 16, kA = 8, kB = 4, kC = 4;
  static constexpr bool kKeysOnRows = false, kHalfExchange = false;
  static constexpr int kStats = 2;

  RF_DEVICE static constexpr int a_row(int l, int e) { return l / 4 + 8 * (e / 2 % 2); }
  RF_DEVICE static constexpr int a_k(int l, int e) { return 2 * (l % 4) + e % 2 + 8 * (e / 4); }
  RF_DEVICE static constexpr int b_k(int l, int e) { return 2 * (l % 4) + e % 2 + 8 * (e / 2); }
  RF_DEVICE static constexpr int b_col(int l, int) { return l / 4; }
  RF_DEVICE static constexpr int c_row(int l, int r) { return l / 4 + 8 * (r / 2); }
  RF_DEVICE static constexpr int c_col(int l, int r) { return 2 * (l % 4) + r % 2; }
  RF_DEVICE static constexpr int stat(int r) { return r / 2; }
  RF_DEVICE static constexpr int k_group(int l) { return l % 4; }
  RF_DEVICE static constexpr int query_element(int i) { return i / 4 * 2 + i % 2; }

#if defined(__CUDA_ARCH__)
  RF_DEVICE static Vec<float, kC> mma(const Vec<T, kA>& a, const Vec<T, kB>& b, const Vec<float, kC>& c) {
    struct A4 {
      uint32_t x[4];
    };
    struct B2 {
      uint32_t x[2];
    };
    const A4 av = __builtin_bit_cast(A4, a);
    const B2 bv = __builtin_bit_cast(B2, b);
    Vec<float, kC> d;
    if constexpr (__is_same(T, bf16)) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
          : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
          : "r"(av.x[0]), "r"(av.x[1]), "r"(av.x[2]), "r"(av.x[3]), "r"(bv.x[0]), "r"(bv.x[1]), "f"(c[0]), "f"(c[1]),
            "f"(c[2]), "f"(c[3]));
    } else {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%11,%12,%13};"
          : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
          : "r"(av.x[0]), "r"(av.x[1]), "r"(av.x[2]), "r"(av.x[3]), "r"(bv.x[0]), "r"(bv.x[1]), "f"(c[0]), "f"(c[1]),
            "f"(c[2]), "f"(c[3]));
    }
    return d;
  }
#endif
};

}  // namespace rocmforge
