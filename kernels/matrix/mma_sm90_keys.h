// SPDX-License-Identifier: Apache-2.0
// NVIDIA sm_90: wgmma with keys, and then dims, on its 64 rows and queries on its columns, of which there may be as few
// as 8: for heads that share a key, few queries would leave most of 64 rows empty. Both operands lie in shared memory.
// Of a product a wave holds 16 rows, as of mma.m16n8k16, here with the two registers of a column side by side.
#pragma once

#include "mma_sm90.h"

namespace rocmforge {

template <class T>
struct MmaSm90Keys {
  using Element = T;
  using Base = MmaSm80<T>;
  using Rows = SwizzledRows<T>;
  static constexpr int kWave = 32, kM = 16, kN = 8, kK = 16, kA = 8, kB = 4, kC = 4;
  static constexpr bool kKeysOnRows = true, kHalfExchange = false;
  static constexpr int kStats = 2;
  static constexpr int kWaves = 4;  // that multiply together
  using C = Vec<float, kC>;

  RF_DEVICE static constexpr int a_row(int l, int e) { return Base::a_row(l, e); }
  RF_DEVICE static constexpr int a_k(int l, int e) { return Base::a_k(l, e); }
  RF_DEVICE static constexpr int b_k(int l, int e) { return Base::b_k(l, e); }
  RF_DEVICE static constexpr int b_col(int l, int e) { return Base::b_col(l, e); }
  RF_DEVICE static constexpr int c_row(int l, int r) { return Base::c_row(l, hardware(r)); }
  RF_DEVICE static constexpr int c_col(int l, int r) { return Base::c_col(l, hardware(r)); }
  RF_DEVICE static constexpr int stat(int r) { return r / 2; }
  RF_DEVICE static constexpr int k_group(int l) { return l / 16; }
  RF_DEVICE static constexpr int query_element(int i) { return i; }

  // The register of a product that register r here is: rows and columns change places.
  RF_DEVICE static constexpr int hardware(int r) { return r / 2 + r % 2 * 2; }

  // c[n] (8 columns each) = a b (First) or += a b, in the hardware's order. B's element (k, column) is at
  // Rows::at(column, b_k + k) from `b` on. A's element (row, k) is at Rows::at(row, a_k + k) from `a` on, or with
  // TransposedA at (a_k + k, row). `a_offset`, `b_offset`: elements, whole rows, to add to the pointers. From begin()
  // to wait() nothing may touch c.
  template <bool TransposedA, bool First, int Tiles>
  RF_DEVICE static void product(C (&c)[Tiles], const T* a, int a_offset, int a_k, const T* b, int b_offset, int b_k) {
    static_assert(Tiles == 2 || Tiles == 4 || Tiles == 6 || Tiles == 8);
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const uint64_t da = swizzled_descriptor(a, a_offset + (TransposedA ? a_k * Rows::kColumns : a_k));
    const uint64_t db = swizzled_descriptor(b, b_offset + b_k);
#define RF_WGMMA(type, columns, c_list, a, b, more, transposed, ...)                                                  \
  asm volatile("{.reg .pred p; setp.ne.b32 p, " more ", 0; wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
               "." type " {" c_list "}, " a ", " b ", p, 1, 1, " transposed ", 0;}"                                   \
               : __VA_ARGS__                                                                                          \
               : "l"(da), "l"(db), "n"(First ? 0 : 1), "n"(TransposedA ? 1 : 0))
#define RF_C(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define RF_LIST8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define RF_LIST16 RF_LIST8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define RF_LIST24 RF_LIST16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define RF_LIST32 RF_LIST24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define RF_PRODUCTS(type)                                                                                              \
  if constexpr (Tiles == 2) {                                                                                          \
    RF_WGMMA(type, "16", RF_LIST8, "%8", "%9", "%10", "%11", RF_C(0), RF_C(1));                                        \
  } else if constexpr (Tiles == 4) {                                                                                   \
    RF_WGMMA(type, "32", RF_LIST16, "%16", "%17", "%18", "%19", RF_C(0), RF_C(1), RF_C(2), RF_C(3));                   \
  } else if constexpr (Tiles == 6) {                                                                                   \
    RF_WGMMA(type, "48", RF_LIST24, "%24", "%25", "%26", "%27", RF_C(0), RF_C(1), RF_C(2), RF_C(3), RF_C(4), RF_C(5)); \
  } else {                                                                                                             \
    RF_WGMMA(type, "64", RF_LIST32, "%32", "%33", "%34", "%35", RF_C(0), RF_C(1), RF_C(2), RF_C(3), RF_C(4), RF_C(5),  \
             RF_C(6), RF_C(7));                                                                                        \
  }
    if constexpr (__is_same(T, bf16)) {
      RF_PRODUCTS("bf16")
    } else {
      RF_PRODUCTS("f16")
    }
#undef RF_PRODUCTS
#undef RF_LIST32
#undef RF_LIST24
#undef RF_LIST16
#undef RF_LIST8
#undef RF_C
#undef RF_WGMMA
#else
    const int l = lane<kWave>(), wave = wave_index<kWave>() % kWaves;
    Vec<T, kA> rows;
    for (int e = 0; e < kA; ++e) {
      const int row = wave * kM + a_row(l, e), k = a_k + MmaSm90Keys::a_k(l, e);
      rows[e] = (a + a_offset)[TransposedA ? Rows::at(k, row) : Rows::at(row, k)];
    }
    Vec<T, kB> columns[Tiles];
    for (int n = 0; n < Tiles; ++n) {
      for (int e = 0; e < kB; ++e)
        columns[n][e] = (b + b_offset)[Rows::at(n * kN + b_col(l, e), b_k + MmaSm90Keys::b_k(l, e))];
    }
    if constexpr (First) {
      for (C& tile : c) tile = fill<float, kC>(0.0f);
    }
    products<Base, Tiles, 1, 0, 1>(c, &rows, columns);
#endif
  }

  // Scores of 8 queries (columns) with 16 keys, in the hardware's order, to where B has them: queries as rows.
  RF_DEVICE static void store_transposed(T* rows, int first_row, int first_column, const C& c) {
    const int l = lane<kWave>();
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const T* const to = rows + Rows::chunk_at(first_row + l % 8, first_column + l / 8 % 2 * Rows::kChunk);
    asm volatile("stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(
                     static_cast<uint32_t>(__cvta_generic_to_shared(to))),
                 "r"(pack2_near<T>(c[0], c[1])), "r"(pack2_near<T>(c[2], c[3]))
                 : "memory");
#else
    for (int r = 0; r < kC; ++r)
      rows[Rows::at(first_row + Base::c_col(l, r), first_column + Base::c_row(l, r))] = from_float<T>(c[r]);
#endif
  }

  // As MmaSm90's.
  RF_DEVICE static void begin() { MmaSm90<T>::begin(); }
  RF_DEVICE static void commit() { MmaSm90<T>::commit(); }
  RF_DEVICE static void publish() { MmaSm90<T>::publish(); }
  template <int N>
  RF_DEVICE static void wait(C (&c)[N]) {
    MmaSm90<T>::wait(c);
  }
};

}  // namespace rocmforge
