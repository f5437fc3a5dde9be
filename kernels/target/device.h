// SPDX-License-Identifier: Apache-2.0
// The device dialect: what a kernel may use besides C++. Exactly one target is compiled in; each defines
//   RF_DEVICE, RF_UNROLL, RF_NO_UNROLL, RF_KERNEL(name, Kernel: a struct with Args, kConfig and run(args))
//   kHostTarget; kNativeWave: lanes of the hardware's wave; kDies: parts of the GPU with an L2 each, to which
//   workgroups go in turn; kPackedFloats: floats that are best added and multiplied together
// Lanes
//   thread_index(), block_index(d), barrier(), shared_memory<T>()
//   shuffle_xor<Wave>(v, mask), shuffle_xor<Wave, mask>(v), shuffle<Wave>(v, lane), broadcast<Wave>(v, lane: the same
//   for all), any<Wave>(b)
//   uniform<Wave>(i): i, which is the same in all lanes, known as such where that costs nothing; uniform_now<Wave>(i):
//   known as such in any case
// Numbers
//   exp2, log2, sqrt, rsqrt on float; tanh_of_power(x): (2^x - 1) / (2^x + 1), which is tanh(x ln(2) / 2)
//   float_to_bits, bits_to_float; f16_to_float, float_to_f16 (convert.h makes the rest)
//   min, max: `a < b ? b : a`; of floats on NVIDIA the instruction, which differs in what a NaN gives
//   low_halves, high_halves: of two words, as one
// Memory
//   copy_async16, copy_commit, copy_wait<N> (global to shared memory), kAsyncCopy: whether they really are asynchronous
//   reload_args(args): the same, in registers from here on only
// Launches
//   let_next_start(): the next launch may begin if it is an early one; wait_for_previous(): such a launch's wait, for
//   everything the launch ahead of it does, which every lane must come to; kEarlyLaunch: whether there are such
//   launches
//   fetch_to_l2(p, bytes), load_unsettled(p): what such a launch may do before its wait. Bytes that will be read soon
//   (both multiples of 16), and a word that may yet change: loads after the wait see it anew
//   publish_writes(): at the end of a launch that neither is early nor lets the next start, makes what this lane wrote
//   good to read for all later launches, before their waits too
// Hints
//   materialize(v): v is computed by here and not after a branch that follows; what is made of it, not before
//   issue_loads(v): v's loads are issued by here and not after a branch that follows
//   schedule_fence(): no instruction is moved across it
// A target may also define
//   RF_FLOATS(n): the compiler's vector of n floats, where it makes packed instructions of it
//   RF_PACK2_BF16 with pack2_bf16(a, b): two floats to one word by an instruction
//   RF_LOAD_TRANSPOSED(words, pointer): load_transposed (words.h) by an instruction
#pragma once

#include "../launch_config.h"
#include "types.h"

#if defined(RF_TARGET_CPU)
#include "host.h"
#elif defined(__CUDACC__)
#include "nvidia.h"
#elif defined(__HIP__)
#include "amd.h"
#else
#error "compile with -DRF_TARGET_CPU (C++), as HIP with clang, or as CUDA with nvcc"
#endif

#include "convert.h"
#include "vec.h"

namespace rocmforge {

template <int Wave>
RF_DEVICE int lane() {
  return thread_index() % Wave;
}

// Which wave of the block this lane belongs to, known to the compiler as uniform.
template <int Wave>
RF_DEVICE int wave_index() {
  return uniform<Wave>(thread_index() / Wave);
}

namespace detail {
template <class A, class B>
inline constexpr bool kSame = false;
template <class A>
inline constexpr bool kSame<A, A> = true;
}  // namespace detail

// std::same_as, for there is no standard library here.
template <class A, class B>
concept SameAs = detail::kSame<A, B>;

template <class T>
RF_DEVICE constexpr T min(T a, T b) {
  return b < a ? b : a;
}

template <class T>
RF_DEVICE constexpr T max(T a, T b) {
  return a < b ? b : a;
}

RF_DEVICE constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

// How a kernel begins that has work for each lane and waits for the launch ahead: the lane's number in the launch.
template <int Threads>
RF_DEVICE int64_t begin_lane() {
  let_next_start();
  wait_for_previous();
  return static_cast<int64_t>(block_index(0)) * Threads + thread_index();
}

}  // namespace rocmforge
