// SPDX-License-Identifier: Apache-2.0
// Which registers still wait for memory. A load's destination must not be touched before its counter was waited for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "instruction.h"

namespace amdgpu {

struct Pending {
  static constexpr int kRegisters = kVectorRegisters + kDecoderRegisters + scalar_register::kCount;

  uint32_t issued[kCounters];     // operations so far, by counter
  uint32_t done[kCounters];       // of them, those known to be complete
  uint32_t latest[kCounters];     // the number of the latest load
  uint32_t unordered[kCounters];  // the number of the latest that may overtake others (scalar loads); 0: none
  bool busy;                      // some load is not known to be complete
  uint32_t number[kRegisters];    // of the load that writes a register; 0: none
  Counter counter[kRegisters];    // its counter

  static int vector_register(int reg) { return reg; }
  static int scalar_register(int reg) { return kVectorRegisters + kDecoderRegisters + reg; }

  void reset() { std::memset(static_cast<void*>(this), 0, sizeof(*this)); }

  bool waits_for(int reg) const {
    return number[reg] > done[static_cast<int>(counter[reg])];  // number 0 is never greater
  }

  // Another operation of the counter begins; returns its number.
  uint32_t issue(Counter c) { return ++issued[static_cast<int>(c)]; }

  // Operation `which` of the counter will write `count` registers.
  void load(Counter c, uint32_t which, int first, int count) {
    busy = true;
    latest[static_cast<int>(c)] = which;
    for (int r = first; r < first + count; ++r) number[r] = which, counter[r] = c;
  }

  // At most `left` operations of the counter are outstanding from here on. Those that may overtake each other are
  // known to be complete only when none is outstanding.
  void wait(Counter c, uint32_t left) {
    const int at = static_cast<int>(c);
    if (left == 0 || unordered[at] <= done[at]) {
      if (issued[at] > left) done[at] = std::max(done[at], issued[at] - left);
    }
    busy = false;
    for (int i = 0; i < kCounters; ++i) busy |= latest[i] > done[i];
  }
};

}  // namespace amdgpu
