// SPDX-License-Identifier: Apache-2.0
// NVIDIA sm_90: mma_sm80.h's layouts, and wgmma of 64 rows, for which four waves hold 16 rows of A and C each as they
// would for mma.sync and B lies in shared memory. B never passes registers, so products are bound by the tensor cores
// instead of shared memory's bandwidth. Layout: PTX ISA, "Asynchronous warpgroup level matrix instructions".
#pragma once

#include "../target/words.h"
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

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
// Of SwizzledRows that begin `start` elements after `base`: 128-byte swizzle, groups of 8 rows 1024 bytes apart.
// Addresses count 16 bytes, so what the compiler knows is added.
template <class T>
RF_DEVICE uint64_t swizzled_descriptor(const T* base, int start) {
  const uint64_t address = (static_cast<uint32_t>(__cvta_generic_to_shared(base)) & 0x3ffff) >> 4;
  return (address | uint64_t{1} << 16 | uint64_t{1024 >> 4} << 32 | uint64_t{1} << 62) + start * sizeof(T) / 16;
}
#endif

template <class T>
struct MmaSm90 : MmaSm80<T> {
  using Base = MmaSm80<T>;
  using A = Words<T, Base::kA>;
  using C = Vec<float, Base::kC>;

  // c[n] (8 columns each; 16, 32 or 64 in all) = a b (First) or += a b, with the matrix B that begins `offset`
  // elements, at a row, after `base`. B's element (k, column) is at SwizzledRows::at(column, k0 + k) of it, or with
  // Transposed at (k0 + k, column). From begin() to wait() nothing may touch c or a.
  template <bool Transposed, bool First, int Tiles>
  RF_DEVICE static void product(C (&c)[Tiles], const A& a, const T* base, int offset, int k0) {
    static_assert(Tiles == 2 || Tiles == 4 || Tiles == 8);
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const uint64_t descriptor = swizzled_descriptor(base, offset + (Transposed ? k0 * SwizzledRows<T>::kColumns : k0));
#define RF_WGMMA(type, columns, c_list, a_list, b, transposed, more, ...)                                             \
  asm volatile("{.reg .pred p; setp.ne.b32 p, " more ", 0; wgmma.mma_async.sync.aligned.m64n" columns "k16.f32." type \
               "." type " {" c_list "}, {" a_list "}, " b ", p, 1, 1, " transposed ";}"                               \
               : __VA_ARGS__                                                                                          \
               : "r"(a.word[0]), "r"(a.word[1]), "r"(a.word[2]), "r"(a.word[3]), "l"(descriptor),                     \
                 "n"(Transposed ? 1 : 0), "n"(First ? 0 : 1))
#define RF_C(n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define RF_LIST8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define RF_LIST16 RF_LIST8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define RF_LIST32 RF_LIST16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define RF_PRODUCTS(type)                                                                                        \
  if constexpr (Tiles == 2) {                                                                                    \
    RF_WGMMA(type, "16", RF_LIST8, "%8,%9,%10,%11", "%12", "%13", "%14", RF_C(0), RF_C(1));                      \
  } else if constexpr (Tiles == 4) {                                                                             \
    RF_WGMMA(type, "32", RF_LIST16, "%16,%17,%18,%19", "%20", "%21", "%22", RF_C(0), RF_C(1), RF_C(2), RF_C(3)); \
  } else {                                                                                                       \
    RF_WGMMA(type, "64", RF_LIST32, "%32,%33,%34,%35", "%36", "%37", "%38", RF_C(0), RF_C(1), RF_C(2), RF_C(3),  \
             RF_C(4), RF_C(5), RF_C(6), RF_C(7));                                                                \
  }
    if constexpr (__is_same(T, bf16)) {
      RF_PRODUCTS("bf16")
    } else {
      RF_PRODUCTS("f16")
    }
#undef RF_PRODUCTS
#undef RF_LIST32
#undef RF_LIST16
#undef RF_LIST8
#undef RF_C
#undef RF_WGMMA
#else
    const T* const b = base + offset;
    OperandB<Base> operand[Tiles];
    const int l = lane<Base::kWave>();
    for (int n = 0; n < Tiles; ++n) {
      for (int e = 0; e < Base::kB; ++e) {
        const int k = k0 + Base::b_k(l, e), column = n * Base::kN + Base::b_col(l, e);
        operand[n][e] = b[Transposed ? SwizzledRows<T>::at(k, column) : SwizzledRows<T>::at(column, k)];
      }
    }
    if constexpr (First) {
      for (C& tile : c) tile = fill<float, Base::kC>(0.0f);
    }
    const auto rows = vector_at<Vec<T, Base::kA> >(a);
    products<Base, Tiles, 1, 0, 1>(c, &rows, operand);
#endif
  }

  // Operands are at hand from here on: prepared between products, the compiler would run those one by one.
  template <int N>
  RF_DEVICE static void ready(A (&a)[N]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    RF_UNROLL
    for (int n = 0; n < N; ++n)
      asm volatile("" : "+r"(a[n].word[0]), "+r"(a[n].word[1]), "+r"(a[n].word[2]), "+r"(a[n].word[3])::"memory");
#endif
  }
  // The operand with `bits` of every word flipped.
  RF_DEVICE static A flipped(A a, uint32_t bits) {
    RF_UNROLL
    for (uint32_t& word : a.word) word ^= bits;
    return a;
  }
  // Products begin to run at commit() at the latest; wait() is for all of them.
  RF_DEVICE static void begin() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
  }
  RF_DEVICE static void commit() {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
  }
  template <int N>
  RF_DEVICE static void wait(C (&c)[N]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
    // The compiler, which does not know when products end, must not read their results before this.
    RF_UNROLL
    for (int n = 0; n < N; ++n) asm volatile("" : "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])::"memory");
#endif
  }
  // A barrier of some waves (1 to 15; each counts `lanes` lanes) that those who need not wait only arrive at.
  RF_DEVICE static void arrive_at([[maybe_unused]] int barrier_number, [[maybe_unused]] int lanes) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("bar.arrive %0, %1;" ::"r"(barrier_number), "r"(lanes) : "memory");
#endif
  }
  RF_DEVICE static void wait_at([[maybe_unused]] int barrier_number, [[maybe_unused]] int lanes) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
    asm volatile("bar.sync %0, %1;" ::"r"(barrier_number), "r"(lanes) : "memory");
#else
    barrier();  // for all, and nobody arrives ahead
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
