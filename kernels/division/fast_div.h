// SPDX-License-Identifier: Apache-2.0
// Division by a number the host knows: on a GPU an integer division costs some forty instructions, this costs three.
#pragma once

#include "../target/types.h"

namespace rocmforge {

// Exact for every dividend below 2^31 (Granlund and Montgomery, "Division by invariant integers using multiplication",
// 1994: with l = ceil(log2 d) and m = ceil(2^(31+l) / d), n / d = n * m >> (31 + l)).
struct FastDiv {
  uint32_t divisor = 1;
  uint32_t multiplier = 0x80000000u;
  uint32_t shift = 31;
};

constexpr FastDiv make_fast_div(uint32_t divisor) {
  uint32_t log = 0;
  while ((uint64_t{1} << log) < divisor) ++log;
  const uint32_t shift = 31 + log;
  const uint64_t multiplier = ((uint64_t{1} << shift) + divisor - 1) / divisor;
  return {divisor, static_cast<uint32_t>(multiplier), shift};
}

}  // namespace rocmforge
