// SPDX-License-Identifier: Apache-2.0
// NVIDIA sm_90: mma_sm80.h's layouts, and wgmma m64n64k16, for which four waves hold 64 rows of A and C as they would
// for mma.sync and B lies in shared memory. B never passes registers, so products are bound by the tensor cores instead
// of shared memory's bandwidth. Layout: PTX ISA, "Asynchronous warpgroup level matrix instructions".
#pragma once

#include "mma_sm80.h"

namespace rocmforge {

// Rows of 64 elements (128 bytes) whose 16-byte chunks are permuted: eight rows' equal columns lie in different banks.
// The address of row 0 must be a multiple of 1024 bytes and so must be 8-row steps from it.
template <class T>
struct SwizzledRows {
  static constexpr int kColumns = 64, kChunk = 8;
  RF_DEVICE static constexpr int chunk_at(int row, int column) {
    return row * kColumns + ((column / kChunk) ^ (row % 8)) * kChunk;
  }
  RF_DEVICE static constexpr int at(int row, int column) { return chunk_at(row, column) + column % kChunk; }
};

template <class T>
struct MmaSm90 : MmaSm80<T> {
  static constexpr int kTileColumns = 64;  // of B and C, in a product of four waves
  using Base = MmaSm80<T>;
  using A = Vec<T, Base::kA>;
  using C = Vec<float, Base::kC>;

  // c[n] (8 columns each) = a b (First) or += a b. B's element (k, column) is at b[SwizzledRows::at(column, k0 + k)],
  // or with Transposed at b[SwizzledRows::at(k0 + k, column)]. Between begin() and end() nothing may touch c or a.
  template <bool Transposed, bool First>
  RF_DEVICE static void product(C (&c)[kTileColumns / Base::kN], const A& a, const T* b, int k0) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const T* const start = b + (Transposed ? k0 * SwizzledRows<T>::kColumns : k0);
    const uint64_t address = static_cast<uint32_t>(__cvta_generic_to_shared(start));
    // 128-byte swizzle, groups of 8 rows 1024 bytes apart.
    const uint64_t descriptor =
        (address & 0x3ffff) >> 4 | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62;
    struct A4 {
      uint32_t x[4];
    };
    const A4 av = __builtin_bit_cast(A4, a);
#define RF_WGMMA(type)                                                                                                 \
  asm volatile("{.reg .pred p; setp.ne.b32 p, %38, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type       \
               " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,"      \
               "%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, %37;}"                                      \
               : RF_C4(0), RF_C4(1), RF_C4(2), RF_C4(3), RF_C4(4), RF_C4(5), RF_C4(6), RF_C4(7)                        \
               : "r"(av.x[0]), "r"(av.x[1]), "r"(av.x[2]), "r"(av.x[3]), "l"(descriptor),                              \
                 "n"(Transposed ? 1 : 0), "n"(First ? 0 : 1))
#define RF_C4(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
    if constexpr (__is_same(T, bf16)) RF_WGMMA("bf16");
    else RF_WGMMA("f16");
#undef RF_C4
#undef RF_WGMMA
#else
    OperandB<Base> operand[kTileColumns / Base::kN];
    const int l = lane<Base::kWave>();
    for (int n = 0; n < kTileColumns / Base::kN; ++n) {
      for (int e = 0; e < Base::kB; ++e) {
        const int k = k0 + Base::b_k(l, e), column = n * Base::kN + Base::b_col(l, e);
        operand[n][e] = b[Transposed ? SwizzledRows<T>::at(k, column) : SwizzledRows<T>::at(column, k)];
      }
    }
    if constexpr (First) {
      for (C& tile : c) tile = fill<float, Base::kC>(0.0f);
    }
    products<Base, kTileColumns / Base::kN, 1, 0, 1>(c, &a, operand);
#endif
  }

  RF_DEVICE static void begin() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
  }
  RF_DEVICE static void end() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#endif
  }
  // After a wait for copies to shared memory, before the barrier that products read them behind.
  RF_DEVICE static void publish() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
  }
};

}  // namespace rocmforge
