// SPDX-License-Identifier: Apache-2.0
// One block of a kernel on one CPU thread: the scheduler behind the CPU target.
#pragma once

#include "../launch_config.h"

namespace rocmforge {

inline constexpr int kMaxHostWave = 64;

// The symbol every kernel exports from the CPU library. run_block returns null, or what went wrong in the kernel
// (lanes that wait for each other forever, lanes of one wave in different collectives).
struct HostKernel {
  LaunchConfig config;
  const char* (*run_block)(const void* args, const int32_t* block, const int32_t* grid);
};

struct HostLane {
  int32_t thread;
  int32_t block[3];
  void* shared;
};

// The lane running now on this thread. initial-exec: one load instead of a call per access.
extern thread_local HostLane host_lane __attribute__((tls_model("initial-exec")));

using HostLaneFn = void (*)(const void* args);
const char* run_host_block(const LaunchConfig& config, HostLaneFn lane, const void* args, const int32_t* block,
                           const int32_t* grid);

// Waits for every lane of the wave; the last to come runs `combine` over the lanes' payloads, which lie on their
// stacks, then all go on.
using HostCombine = void (*)(void** payloads, int count);
void host_wave_collective(void* payload, HostCombine combine);

void host_barrier();

}  // namespace rocmforge
