// SPDX-License-Identifier: Apache-2.0
// How long a wave would take by itself, instruction after instruction: a model, not the hardware. An instruction begins
// when the one before was issued, its unit is free and the results that it reads are there; a wait ends when the
// operations that it names have come back. Waves of a workgroup meet at barriers and do not disturb each other
// otherwise. Costs are the caller's (benchmarks/amd/model.py says which).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "registry.h"
#include "wave.h"

namespace amdgpu {

// Of an instruction, in clocks.
struct Cost {
  uint16_t issue;  // until the wave's next one may begin
  uint16_t busy;  // of the unit; LDS is busy for the clocks that the accesses take as well
  uint16_t latency;  // until results are there, or until memory has answered
  uint16_t unit;  // below kUnits
};
inline constexpr int kUnits = 8;

// Clocks that waves stood still, by what they stood for.
struct Stalls {
  // Memory by counter (instruction.h), results of other instructions in the place of kNone.
  enum For { kResult = 0, kUnit = kCounters, kBarrier, kCount };
  std::array<uint64_t, kCount> clocks{};
  void add(const Stalls& other) {
    for (size_t n = 0; n < clocks.size(); ++n) clocks[n] += other.clocks[n];
  }
};

class Timing {
 public:
  // `costs`: by row.
  Timing(const Cost* costs, uint32_t waves) : costs_(costs), clocks_(waves) {
    for (const Handler& h : handlers()) {
      if (h.name == "s_waitcnt") wait_handler_ = static_cast<int>(&h - handlers().data());
    }
  }

  void start() {
    for (WaveClock& c : clocks_) c = {};
  }

  // Wave `wave` executes a row; `shared` are the LDS clocks of its accesses.
  void step(int wave, const Instruction& i, uint32_t row, uint32_t shared);

  // The waves go on from a barrier.
  void meet(const std::vector<uint32_t>& waves);

  // When the last wave ended.
  uint64_t end() const;

  Stalls stalls;

 private:
  struct WaveClock {
    uint64_t now = 0;
    std::array<uint64_t, kUnits> free{};  // when a unit can take another instruction
    std::array<uint64_t, Pending::kRegisters> ready{};  // when a register's value is there
    std::array<std::vector<uint64_t>, kCounters> answered{};  // when memory operations come back, in order
  };
  void until(WaveClock& c, uint64_t time, int why) {
    if (time <= c.now) return;
    stalls.clocks[why] += time - c.now;
    c.now = time;
  }

  const Cost* costs_;
  std::vector<WaveClock> clocks_;
  int wait_handler_ = -1;
};

}  // namespace amdgpu
