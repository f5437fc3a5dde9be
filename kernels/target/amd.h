// SPDX-License-Identifier: Apache-2.0
// AMD GPUs: compiler builtins only, so that no ROCm header or device library is needed to compile.
#pragma once

#define RF_DEVICE __attribute__((device)) inline __attribute__((always_inline))
#define RF_UNROLL _Pragma("unroll")
#define RF_NO_UNROLL _Pragma("unroll 1")

// The entry point, and its launch shape as a constant the runtime reads back. Shared memory is allocated statically on
// this target, so the launch requests none.
#define RF_KERNEL(name, ...)                                                                                         \
  extern "C" __attribute__((device, used, visibility("protected"))) const rocmforge::LaunchConfig name##_config =    \
      rocmforge::detail::without_shared(__VA_ARGS__::kConfig);                                                       \
  extern "C" __attribute__((global, visibility("protected"),                                                         \
                            amdgpu_flat_work_group_size(__VA_ARGS__::kConfig.threads, __VA_ARGS__::kConfig.threads), \
                            amdgpu_waves_per_eu(rocmforge::detail::waves_per_unit<__VA_ARGS__>()))) void             \
  name(const __VA_ARGS__::Args args) {                                                                               \
    __VA_ARGS__::run(args);                                                                                          \
  }

namespace rocmforge {

inline constexpr bool kHostTarget = false;
#if defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx950__) || defined(__GFX9__)
inline constexpr int kNativeWave = 64;
#else
inline constexpr int kNativeWave = 32;
#endif
#if defined(__gfx942__) || defined(__gfx950__) || defined(__gfx9_4_generic__)
inline constexpr int kDies = 8;
#else
inline constexpr int kDies = 1;
#endif
inline constexpr bool kAsyncCopy = false;
// CDNA has packed fp32 instructions; RDNA issues independent pairs together.
inline constexpr int kPackedFloats = 2;
#define RF_FLOATS(n) float __attribute__((ext_vector_type(n)))

namespace detail {
// Waves per SIMD the register allocator must leave room for; a kernel may publish kWavesPerUnit.
template <class Kernel>
constexpr unsigned waves_per_unit() {
  if constexpr (requires { Kernel::kWavesPerUnit; }) return Kernel::kWavesPerUnit;
  else return 1;
}

constexpr LaunchConfig without_shared(LaunchConfig config) {
  config.shared_bytes = 0;
  return config;
}
}  // namespace detail

RF_DEVICE int thread_index() { return static_cast<int>(__builtin_amdgcn_workitem_id_x()); }

RF_DEVICE int block_index(int dim) {
  return static_cast<int>(dim == 0   ? __builtin_amdgcn_workgroup_id_x()
                          : dim == 1 ? __builtin_amdgcn_workgroup_id_y()
                                     : __builtin_amdgcn_workgroup_id_z());
}

template <class T>
RF_DEVICE T& shared_memory() {
  static __attribute__((shared)) T memory;
  return memory;
}

// The wave's own stores, to shared memory and, where the waves of a block do not share a cache in order, to global
// memory, are done. The release fence asks for that too, but clang 22 drops its wait where the stores are those of the
// loop's last turn only (llvm-project pull request 220356). In 52 kernels of gfx9 and gfx11 a store led to a barrier
// so.
RF_DEVICE void wait_for_stores() {
#if defined(__GFX12__)
  asm volatile("s_wait_dscnt 0x0\n\ts_wait_storecnt 0x0" ::: "memory");
#elif defined(__GFX11__)
  asm volatile("s_waitcnt lgkmcnt(0)\n\ts_waitcnt_vscnt null, 0x0" ::: "memory");
#else
  asm volatile("s_waitcnt lgkmcnt(0)" ::: "memory");
#endif
}

RF_DEVICE void barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  wait_for_stores();
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

RF_DEVICE uint32_t float_to_bits(float x) { return __builtin_bit_cast(uint32_t, x); }
RF_DEVICE float bits_to_float(uint32_t x) { return __builtin_bit_cast(float, x); }
RF_DEVICE float f16_to_float(uint16_t x) { return static_cast<float>(__builtin_bit_cast(_Float16, x)); }
RF_DEVICE uint16_t float_to_f16(float x) { return __builtin_bit_cast(uint16_t, static_cast<_Float16>(x)); }

template <int Wave, class T>
RF_DEVICE T shuffle(T value, int source) {
  static_assert(sizeof(T) == 4);
  return __builtin_bit_cast(T, __builtin_amdgcn_ds_bpermute(source * 4, __builtin_bit_cast(int, value)));
}

template <int Wave, class T>
RF_DEVICE T shuffle_xor(T value, int mask) {
  return shuffle<Wave>(value, (thread_index() ^ mask) % Wave);
}

// With the mask known: no address to compute, and between RDNA's rows of 16 lanes no trip through shared memory.
template <int Wave, int Mask, class T>
RF_DEVICE T shuffle_xor(T value) {
  static_assert(sizeof(T) == 4);
  const int bits = __builtin_bit_cast(int, value);
  if constexpr (Mask < 4) {
    constexpr int kQuad = Mask == 1 ? 0xb1 : Mask == 2 ? 0x4e : 0x1b;
    return __builtin_bit_cast(T, __builtin_amdgcn_mov_dpp(bits, kQuad, 0xf, 0xf, true));
#if defined(__GFX11__) || defined(__GFX12__)
  } else if constexpr (Mask < 16) {
    return __builtin_bit_cast(T, __builtin_amdgcn_mov_dpp(bits, 0x160 | Mask, 0xf, 0xf, true));
  } else if constexpr (Mask == 16) {
    return __builtin_bit_cast(T, __builtin_amdgcn_permlanex16(bits, bits, 0x76543210, 0xfedcba98, true, false));
#endif
  } else if constexpr (Mask < 32) {
    return __builtin_bit_cast(T, __builtin_amdgcn_ds_swizzle(bits, Mask << 10 | 0x1f));
  } else {
    return shuffle_xor<Wave>(value, Mask);
  }
}

// Of a lane whose number all lanes know.
template <int Wave, class T>
RF_DEVICE T broadcast(T value, int source) {
  return __builtin_bit_cast(T, __builtin_amdgcn_readlane(__builtin_bit_cast(int, value), source));
}

template <int Wave>
RF_DEVICE bool any(bool value) {
  if constexpr (Wave == 64) return __builtin_amdgcn_ballot_w64(value) != 0;
  else return __builtin_amdgcn_ballot_w32(value) != 0;
}

template <int Wave>
RF_DEVICE int uniform(int value) {
  return __builtin_amdgcn_readfirstlane(value);
}
template <int Wave>
RF_DEVICE int uniform_now(int value) {
  return uniform<Wave>(value);
}

// The low, and the high, halves of two words as one word, the first below.
RF_DEVICE uint32_t low_halves(uint32_t a, uint32_t b) { return __builtin_amdgcn_perm(b, a, 0x05040100); }
RF_DEVICE uint32_t high_halves(uint32_t a, uint32_t b) { return __builtin_amdgcn_perm(b, a, 0x07060302); }

// The same arguments, read again from here on, so that no registers hold them until then.
template <class Args>
RF_DEVICE const Args& reload_args(const Args&) {
  auto* pointer = __builtin_amdgcn_kernarg_segment_ptr();
  asm volatile("" : "+s"(pointer));
  return *(const Args*)pointer;
}

// The value is computed by here: the compiler may not sink its computation past a branch that follows.
template <class V>
RF_DEVICE void materialize(V& value) {
  if constexpr (sizeof(V) == 4) {
    asm volatile("" : "+v"(value));
  } else {
    using Registers = float __attribute__((ext_vector_type(sizeof(V) / 4)));
    Registers registers = __builtin_bit_cast(Registers, value);
    asm volatile("" : "+v"(registers));
    value = __builtin_bit_cast(V, registers);
  }
}

// The compiler moves no instruction across it, so that loads placed after it do not lengthen lives before it.
RF_DEVICE void schedule_fence() { __builtin_amdgcn_sched_barrier(0); }

#if defined(__gfx950__)
// ds_read_b64_tr_b16; see load_transposed.
#define RF_LOAD_TRANSPOSED(word, pointer) rocmforge::detail::load_transposed(word, pointer)
namespace detail {
RF_DEVICE void load_transposed(uint32_t (&word)[2], const void* pointer) {
  using Four = short __attribute__((ext_vector_type(4)));
  using Two = uint32_t __attribute__((ext_vector_type(2)));
  using Shared = __attribute__((address_space(3))) Four;
  const Two two = __builtin_bit_cast(Two, __builtin_amdgcn_ds_read_tr16_b64_v4i16((Shared*)pointer));
  word[0] = two.x;
  word[1] = two.y;
}
}  // namespace detail

#define RF_PACK2_BF16
RF_DEVICE uint32_t pack2_bf16(float a, float b) {
  using Pair = __bf16 __attribute__((ext_vector_type(2)));
  const RF_FLOATS(2) both = {a, b};
  return __builtin_bit_cast(uint32_t, __builtin_convertvector(both, Pair));
}
#endif

RF_DEVICE void copy_async16(void* shared, const void* global) {
  using Word4 = uint32_t __attribute__((ext_vector_type(4)));
  *static_cast<Word4*>(shared) = *static_cast<const Word4*>(global);
}
RF_DEVICE void copy_commit() {}
template <int Pending>
RF_DEVICE void copy_wait() {}

RF_DEVICE float exp2(float x) { return __builtin_amdgcn_exp2f(x); }
RF_DEVICE float log2(float x) { return __builtin_amdgcn_logf(x); }
RF_DEVICE float rsqrt(float x) { return __builtin_amdgcn_rsqf(x); }
RF_DEVICE float sqrt(float x) { return __builtin_amdgcn_sqrtf(x); }
RF_DEVICE float tanh_of_power(float x) { return __builtin_fmaf(-2.0f, __builtin_amdgcn_rcpf(exp2(x) + 1.0f), 1.0f); }

template <class V>
RF_DEVICE void issue_loads(const V&) {}

}  // namespace rocmforge

#include "in_order.h"
