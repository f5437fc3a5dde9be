// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs (sm_80 and later): the validation and development target.
#pragma once

#include <cuda_fp16.h>

#define RF_DEVICE __device__ __forceinline__
#define RF_UNROLL _Pragma("unroll")
#define RF_NO_UNROLL _Pragma("unroll 1")

#define RF_KERNEL(name, ...)                                                                                       \
  extern "C" __device__ const rocmforge::LaunchConfig name##_config = __VA_ARGS__::kConfig;                        \
  extern "C" __global__ void __launch_bounds__(__VA_ARGS__::kConfig.threads, __VA_ARGS__::kConfig.blocks_per_unit) \
      name(const __grid_constant__ __VA_ARGS__::Args args) {                                                       \
    __VA_ARGS__::run(args);                                                                                        \
  }

namespace rocmforge {

inline constexpr bool kHostTarget = false;
inline constexpr int kNativeWave = 32;
inline constexpr int kDies = 1;
inline constexpr int kPackedFloats = 1;
inline constexpr bool kAsyncCopy = true;

RF_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }

RF_DEVICE int block_index(int dim) {
  return static_cast<int>(dim == 0 ? blockIdx.x : dim == 1 ? blockIdx.y : blockIdx.z);
}

template <class T>
RF_DEVICE T& shared_memory() {
  extern __shared__ __align__(1024) unsigned char rocmforge_shared[];
  return *reinterpret_cast<T*>(rocmforge_shared);
}

RF_DEVICE void barrier() { __syncthreads(); }

RF_DEVICE uint32_t float_to_bits(float x) { return __float_as_uint(x); }
RF_DEVICE float bits_to_float(uint32_t x) { return __uint_as_float(x); }
RF_DEVICE float f16_to_float(uint16_t x) { return __half2float(__ushort_as_half(x)); }
RF_DEVICE uint16_t float_to_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }

template <int Wave, class T>
RF_DEVICE T shuffle_xor(T value, int mask) {
  static_assert(Wave == 32);
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

template <int Wave>
RF_DEVICE bool any(bool value) {
  static_assert(Wave == 32);
  return __any_sync(0xffffffffu, value);
}

template <int Wave, class T>
RF_DEVICE T shuffle(T value, int source) {
  static_assert(Wave == 32);
  return __shfl_sync(0xffffffffu, value, source);
}

// Not a shuffle: it would wait for the value, often just requested from memory, long before it is used.
template <int Wave>
RF_DEVICE int uniform(int value) {
  return value;
}

// For what is at hand: a shuffle, so that the compiler knows.
template <int Wave>
RF_DEVICE int uniform_now(int value) {
  return shuffle<Wave>(value, 0);
}

// Loads of the value are issued by here: the compiler may not sink them past a branch that follows.
template <class V>
RF_DEVICE void issue_loads(const V& value) {
  struct Words {
    uint32_t word[sizeof(V) / 4];
  };
  const auto words = __builtin_bit_cast(Words, value);
  RF_UNROLL
  for (uint32_t word : words.word) asm volatile("" ::"r"(word));
}

RF_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
RF_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }

#define RF_PACK2_BF16
RF_DEVICE uint32_t pack2_bf16(float a, float b) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(b), "f"(a));
  return out;
}

RF_DEVICE void copy_async16(void* shared, const void* global) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}
RF_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Pending>
RF_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

// Programmatic dependent launch.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
inline constexpr bool kEarlyLaunch = true;
RF_DEVICE void let_next_start() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
RF_DEVICE void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
RF_DEVICE void publish_writes() { __threadfence(); }
RF_DEVICE void fetch_to_l2(const void* global, int bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(global), "r"(bytes));
}
RF_DEVICE int32_t load_unsettled(const int32_t* global) { return __ldcg(global); }
#else
}  // namespace rocmforge
#include "in_order.h"
namespace rocmforge {
#endif

RF_DEVICE float max(float a, float b) { return fmaxf(a, b); }
RF_DEVICE float min(float a, float b) { return fminf(a, b); }
RF_DEVICE float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
RF_DEVICE float log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
RF_DEVICE float rsqrt(float x) { return rsqrtf(x); }
RF_DEVICE float sqrt(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
RF_DEVICE float tanh_of_power(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(exp2(x) + 1.0f));
  return fmaf(-2.0f, y, 1.0f);
}

}  // namespace rocmforge

#include "no_hints.h"
