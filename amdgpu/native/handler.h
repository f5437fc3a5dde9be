// SPDX-License-Identifier: Apache-2.0
// What the library knows of an instruction: its code for both sizes of waves, and what the decoder and the checks need.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "instruction.h"

namespace amdgpu {

template <int Lanes>
struct Wave;

template <int Lanes>
using Run = void (*)(Wave<Lanes>&, const Instruction&);

// How definedness flows from sources to results.
enum class Flow : uint8_t {
  kLanes,  // a lane of a result is defined if that lane of every source is, and every scalar source
  kScalar,  // scalar results from scalar sources: bit by bit nothing is known, all or none
  kOwn,  // the handler says so itself
};

struct Handler {
  std::string name;
  Run<32> run32;
  Run<64> run64;
  // Types of results and of sources, a letter each, with a colon between: u i 32-bit integers without and with sign,
  // U I of 64 bits, t s of 16, f h d floats of 32, 16, 64 bits, m a mask of lanes, p q two 16-bit integers or halves of
  // a word, F two floats of two registers, M a float or a half (mixed precision), N small integers of a word, with or
  // without signs, x any registers.
  std::string types;
  Flow flow;
};

using Handlers = std::span<const Handler>;

}  // namespace amdgpu
