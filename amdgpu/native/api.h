// SPDX-License-Identifier: Apache-2.0
// The C interface, for amdgpu/library.py and for hip.cpp.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "launch.h"
#include "program.h"

namespace amdgpu {

// A program and what its launches executed.
struct Kernel {
  Program program;
  std::mutex mutex;
  std::vector<uint64_t> counts;  // by row
  std::vector<Cost> costs;       // by row; empty: waves are not timed
  Observation seen;              // clocks: of the latest launch; the rest of all
};

// How launches run, for the whole process.
struct Settings {
  Schedule schedule;
  int threads = 1;
};
Settings& settings();

// Launches with arguments as hipModuleLaunchKernel takes them. Returns what went wrong, empty if nothing did.
std::string launch_with(Kernel& kernel, const uint32_t grid[3], const uint32_t block[3], uint32_t shared,
                        const void* const* arguments);

}  // namespace amdgpu
