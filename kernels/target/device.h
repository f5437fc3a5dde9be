// SPDX-License-Identifier: Apache-2.0
// The device dialect: what a kernel may use besides C++. Exactly one target is compiled in; each defines
//   RF_DEVICE, RF_UNROLL, RF_KERNEL(name, Kernel)
//   thread_index(), block_index(d), barrier(), shared_memory<T>()
//   shuffle_xor<Wave>(v, mask), shuffle_xor<Wave, mask>(v), shuffle<Wave>(v, lane), broadcast<Wave>(v, lane: the same
//   for all), any<Wave>(b), uniform<Wave>(i)
//   exp2, log2, rcp, rsqrt on float; f32 <-> f16/bf16 conversions (convert.h)
//   low_halves, high_halves: of two words, as one
//   reload_args(args): the same, in registers from here on only
//   let_next_start(): the next launch may begin if it is an early one; wait_for_previous(): such a launch's wait, for
//   everything the launch ahead of it does, which every lane must come to; kEarlyLaunch: whether there are such
//   launches
//   fetch_to_l2(p, bytes), load_unsettled(p): what such a launch may do before its wait. Bytes that will be read soon
//   (both multiples of 16), and a word that may yet change: loads after the wait see it anew
//   publish_writes(): at the end of a launch that neither is early nor lets the next start, makes what this lane wrote
//   good to read for all later launches, before their waits too
//   materialize(v): a hint, v is computed by here and not after a branch that follows
//   issue_loads(v): a hint, v's loads are issued by here and not after a branch that follows
//   schedule_fence(): a hint, no instruction is moved across it
//   copy_async16, copy_commit, copy_wait<N> (global to shared memory), kAsyncCopy: whether they really are asynchronous
//   kDies: parts of the GPU with an L2 each, to which workgroups go in turn
//   kPackedFloats: floats that are best added and multiplied together
//   kNativeWave: lanes per wave of the hardware; kHostTarget
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

}  // namespace rocmforge
