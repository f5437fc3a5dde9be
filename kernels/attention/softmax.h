// SPDX-License-Identifier: Apache-2.0
// The running softmax of one query row: value sum = sum over keys of exp2(score - maximum), in log2 units.
#pragma once

#include "../target/device.h"

namespace rocmforge {

inline constexpr float kLog2E = 1.4426950408889634f;

// No score reaches it, and unlike -inf it keeps exp2(-inf - m) and exp2(m - m') free of NaN.
inline constexpr float kNoScore = -1e30f;

// The maximum may lag behind the scores by this much (a factor 2^8 in the probabilities, exact in float and within
// every storage type's range) before sums and outputs are rescaled: most tiles then need no cross-lane work at all.
inline constexpr float kMaxLag = 8.0f;
inline constexpr float kMaxGrowth = 256.0f;  // the same for a lane's probabilities of a tile, added up

struct SoftmaxState {
  float maximum;
  float sum;
};

inline constexpr SoftmaxState kNoKeys{kNoScore, 0.0f};

// Two runs over different keys, as one.
RF_DEVICE SoftmaxState merge(SoftmaxState a, SoftmaxState b) {
  const float maximum = max(a.maximum, b.maximum);
  return {maximum, a.sum * exp2(a.maximum - maximum) + b.sum * exp2(b.maximum - maximum)};
}

// Factor that turns a row's accumulated output into the result. `sink`, a logit in log2 units, takes part in the sum
// only (kNoScore: none). A row that saw no key is zero.
RF_DEVICE float final_scale(SoftmaxState row, float sink) {
  const float maximum = max(row.maximum, sink);
  const float factor = exp2(row.maximum - maximum);
  const float sum = row.sum * factor + (sink > kNoScore ? exp2(sink - maximum) : 0.0f);
  return sum > 0 ? factor / sum : 0.0f;
}

// The natural logarithm of a row's sum, the sink's part included: -inf where there is nothing to add up.
RF_DEVICE float log_sum(SoftmaxState row, float sink) {
  const SoftmaxState all = merge(row, {sink, sink > kNoScore ? 1.0f : 0.0f});
  return all.sum > 0 ? (all.maximum + log2(all.sum)) * (1 / kLog2E) : -__builtin_inff();
}

}  // namespace rocmforge
