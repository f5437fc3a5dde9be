// SPDX-License-Identifier: Apache-2.0
// Lanes in fours, as mma.sync and wgmma deal rows of operands and results: of eight elements a lane holds two, a word.
#pragma once

#include "../target/device.h"

namespace rocmforge {

// Word i of the quad's lane q becomes word q of its lane i: what four lanes hold of four runs of 16 bytes is then a run
// for each of them, and the other way round.
template <int Wave>
RF_DEVICE void transpose_quads(uint32_t (&word)[4]) {
  const int l = lane<Wave>();
  RF_UNROLL
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool high = l & bit;
    RF_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const uint32_t got = shuffle_xor<Wave>(high ? word[i] : word[i + bit], bit);
      if (high) word[i] = got;
      else word[i + bit] = got;
    }
  }
}

}  // namespace rocmforge
