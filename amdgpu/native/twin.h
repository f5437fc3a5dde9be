// SPDX-License-Identifier: Apache-2.0
// Uninitialised registers and LDS, and races in global memory. A wave and its twin execute the same code and differ
// only in what nobody has written yet, or is written meanwhile; where an address, what is stored, or the way that a
// branch takes differs between them, it depends on that. So values that are never used are not reported, and all others
// are, with high probability over the lanes.
#pragma once

#include "wave.h"

namespace amdgpu {

// What of an instruction's sources leaves the wave.
struct Use {
  enum Of : uint8_t { kNothing, kSources, kFirstSource, kScc, kVcc, kExec } of = kNothing;
  uint32_t data = ~0u;  // bits of each register of the data that is stored; addresses count in full
  bool data_first = false;  // the data comes before the address
  bool once = false;  // has an effect that must not happen twice: the twin gets its results from the wave
};

// By the handler's name.
Use use_of(const std::string& handler);

// Throws Fault if the uses differ.
template <int L>
void compare_uses(const Wave<L>& wave, const Wave<L>& twin, const Instruction& i, Use use);

// Copies the results of an instruction that was executed once.
template <int L>
void copy_results(const Wave<L>& wave, Wave<L>& twin, const Instruction& i);

}  // namespace amdgpu
