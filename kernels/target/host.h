// SPDX-License-Identifier: Apache-2.0
// The CPU target: each lane of a block is a fiber, so barriers, shuffles and matrix instructions of the real kernel run
// with the real lane numbers. A kernel without collectives runs its lanes one after another on a single stack.
#pragma once

#include "host_block.h"

#define RF_DEVICE inline __attribute__((always_inline))
#define RF_UNROLL  // no registers to keep arrays in: unrolling would only cost compile time
#define RF_NO_UNROLL

#define RF_KERNEL(name, ...)                                                                                          \
  extern "C" __attribute__((visibility("default"))) const rocmforge::HostKernel name = {                              \
      __VA_ARGS__::kConfig, [](const void* args, const rocmforge::int32_t* block, const rocmforge::int32_t* grid) {   \
        return rocmforge::run_host_block(                                                                             \
            __VA_ARGS__::kConfig, [](const void* a) { __VA_ARGS__::run(*static_cast<const __VA_ARGS__::Args*>(a)); }, \
            args, block, grid);                                                                                       \
      }};

namespace rocmforge {

inline constexpr bool kHostTarget = true;
#if defined(RF_NATIVE_WAVE)
inline constexpr int kNativeWave = RF_NATIVE_WAVE;  // lets tests run a kernel at both wave sizes
#else
inline constexpr int kNativeWave = 32;
#endif
// A CPU has no dies; three, so that tests deal out shares as a GPU of several dies does, and with a remainder.
inline constexpr int kDies = 3;
inline constexpr int kPackedFloats = 1;
inline constexpr bool kAsyncCopy = false;

RF_DEVICE int thread_index() { return host_lane.thread; }
RF_DEVICE int block_index(int dim) { return host_lane.block[dim]; }

template <class T>
RF_DEVICE T& shared_memory() {
  return *static_cast<T*>(host_lane.shared);
}

RF_DEVICE void barrier() { host_barrier(); }

RF_DEVICE uint32_t float_to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
RF_DEVICE float bits_to_float(uint32_t x) { return __builtin_bit_cast(float, x); }
RF_DEVICE float f16_to_float(uint16_t x) { return static_cast<float>(__builtin_bit_cast(_Float16, x)); }
RF_DEVICE uint16_t float_to_f16(float x) { return __builtin_bit_cast(uint16_t, static_cast<_Float16>(x)); }

template <int Wave, class T>
RF_DEVICE T shuffle_xor(T value, int mask) {
  if constexpr (Wave == 1) return value;
  struct Payload {
    T value;
    int mask;
  } mine{value, mask};
  host_wave_collective(&mine, [](void** lanes, int count) {
    T out[kMaxHostWave];
    for (int i = 0; i < count; ++i) {
      const int source = i ^ static_cast<Payload*>(lanes[i])->mask;
      out[i] = static_cast<Payload*>(lanes[source < count ? source : i])->value;
    }
    for (int i = 0; i < count; ++i) static_cast<Payload*>(lanes[i])->value = out[i];
  });
  return mine.value;
}

template <int Wave, class T>
RF_DEVICE T shuffle(T value, int source) {
  struct Payload {
    T value;
    int source;
  } mine{value, source};
  host_wave_collective(&mine, [](void** lanes, int count) {
    T out[kMaxHostWave];
    for (int i = 0; i < count; ++i) {
      const int source = static_cast<Payload*>(lanes[i])->source;
      out[i] = static_cast<Payload*>(lanes[source])->value;
    }
    for (int i = 0; i < count; ++i) static_cast<Payload*>(lanes[i])->value = out[i];
  });
  return mine.value;
}

template <int Wave>
RF_DEVICE bool any(bool value) {
  if constexpr (Wave == 1) return value;
  host_wave_collective(&value, [](void** lanes, int count) {
    bool all = false;
    for (int i = 0; i < count; ++i) all |= *static_cast<bool*>(lanes[i]);
    for (int i = 0; i < count; ++i) *static_cast<bool*>(lanes[i]) = all;
  });
  return value;
}

// On hardware a hint that the value is the same in all lanes; here it is taken at its word.
template <int Wave>
RF_DEVICE int uniform(int value) {
  return value;
}
template <int Wave>
RF_DEVICE int uniform_now(int value) {
  return uniform<Wave>(value);
}

RF_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return (a & 0xffffu) | b << 16; }
RF_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }

RF_DEVICE void copy_async16(void* shared, const void* global) { __builtin_memcpy(shared, global, 16); }
RF_DEVICE void copy_commit() {}
template <int Pending>
RF_DEVICE void copy_wait() {}

RF_DEVICE float exp2(float x) { return __builtin_exp2f(x); }
RF_DEVICE float log2(float x) { return __builtin_log2f(x); }
RF_DEVICE float rsqrt(float x) { return 1.0f / __builtin_sqrtf(x); }
RF_DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
RF_DEVICE float tanh_of_power(float x) { return __builtin_tanhf(x * 0.34657359f); }

template <class V>
RF_DEVICE void issue_loads(const V&) {}

}  // namespace rocmforge

#include "in_order.h"
#include "no_hints.h"
