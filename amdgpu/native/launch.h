// SPDX-License-Identifier: Apache-2.0
// A kernel's launch: its workgroups over the host's threads, the waves of each in a chosen order.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "timing.h"
#include "traffic.h"
#include "wave.h"

namespace amdgpu {

// How the waves of a workgroup take turns. Each runs until a barrier, or for `quantum` instructions where that is not
// 0.
struct Schedule {
  enum Order : int32_t { kForward, kReverse, kShuffled };
  Order order = kForward;
  uint32_t seed = 0;
  uint32_t quantum = 0;
  // Instructions of one wave after which it is taken for one that never ends.
  uint64_t limit = uint64_t{1} << 31;
  // Look for uninitialised registers and LDS (twin.h), in twice the time.
  bool twins = false;
  // Count what memory instructions do (traffic.h), and time waves if there are costs (timing.h).
  bool counting = false;
};

struct Launch {
  const Program* program;
  uint32_t grid[3];
  uint32_t block[3];
  uint32_t dynamic_shared;
  const uint8_t* kernarg;
  const Cost* costs = nullptr;  // by row; null: none
};

// What is seen of a launch where the schedule says that it is counted.
struct Observation {
  Traffic traffic;
  std::vector<uint64_t> clocks;  // that each workgroup takes by itself, by number; empty without costs
  Stalls stalls;
  void add(Observation&& launch) {
    traffic.add(launch.traffic);
    clocks = std::move(launch.clocks);
    stalls.add(launch.stalls);
  }
};

// Counts of executed instructions are added to `counts`, by row. Returns what went wrong; empty if nothing did.
std::string launch(const Launch& what, const Schedule& schedule, int threads, uint64_t* counts, Observation& seen);

// Runs one wave of the kernel without any set-up: registers and the pc are the caller's. For tests of instructions.
template <int Lanes>
std::string run_alone(Wave<Lanes>& wave, Workgroup& group);

}  // namespace amdgpu
