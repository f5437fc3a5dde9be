// SPDX-License-Identifier: Apache-2.0
// Memory instructions as LDS and caches would see them, counted from the lanes' addresses before each executes.
//
// LDS: 4-byte words lie in banks in turn. The lanes of an instruction are taken in groups of 128 bytes (at most 32
// lanes), a group for as many clocks as the most distinct words that it asks of one bank; groups without an active lane
// take none. Two-address forms are two accesses. Left out: how accesses of several waves mix, and the crossbar (lane
// permutations count as accesses without conflicts).
//
// Caches: the lines that an instruction's active lanes touch, and the fewest that could hold their distinct bytes. Left
// out: what a cache still holds from before, channels, and translation of addresses.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "wave.h"

namespace amdgpu {

// What an instruction accesses, by its handler.
struct Touch {
  enum Space : uint8_t { kNone, kShared, kPermute, kGlobal, kBuffer, kScalar } space = kNone;
  bool store = false;
  bool to_shared = false;  // a load into LDS
  uint8_t bytes = 0;  // of a lane, at one address
  uint16_t scale = 0;  // of the two offsets of two-address forms, in bytes; 0: others
};
Touch access_of(const std::string& handler);

struct RowTraffic {
  uint64_t shared_clocks, least_shared_clocks;  // the latter: where no two words lie in one bank
  uint64_t lines, fewest_lines;
  uint64_t bytes;  // of all active lanes, in any memory
};

// Lines that launches touched, each once.
class Footprint {
 public:
  void add(uint64_t line) { pages_[line / 64] |= uint64_t{1} << line % 64; }
  void add(const Footprint& other);
  uint64_t lines() const;

 private:
  std::unordered_map<uint64_t, uint64_t> pages_;  // of 64 lines, a bit each
};

struct Traffic {
  std::vector<RowTraffic> rows;
  Footprint read, written;
  void add(const Traffic& other);
};

// Counts for one host thread.
template <int L>
class TrafficCounter {
 public:
  explicit TrafficCounter(const Program& program);

  // Returns the LDS clocks of the instruction that `w` is about to execute, which is row `row`.
  uint32_t count(const Wave<L>& w, const Instruction& i, uint32_t row) {
    const Touch access = access_[i.handler];
    return access.space == Touch::kNone ? 0 : count(w, i, access, traffic.rows[row]);
  }

  Traffic traffic;

 private:
  uint32_t count(const Wave<L>& w, const Instruction& i, Touch access, RowTraffic& row);
  // One access of all active lanes at address_[lane] + offset. Returns its clocks.
  uint32_t count_shared(const Wave<L>& w, Touch access, uint32_t offset, RowTraffic& row);
  void count_lines(int count, Touch access, RowTraffic& row);

  const Entry& entry_;
  std::vector<Touch> access_;  // by handler
  uint64_t address_[L];  // LDS: by lane; else the active lanes' or the wave's, without gaps
};

}  // namespace amdgpu
