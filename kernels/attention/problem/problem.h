// SPDX-License-Identifier: Apache-2.0
// What attention computes, as a type: a key format and a score function. The mask (mask.h) is data of the launch. How
// it is computed is the matrix core's and the tuning's matter.
#pragma once

#include "key_format.h"
#include "score.h"

namespace rocmforge {

template <KeyFormat FormatChosen, ScoreFunction ScoreChosen>
struct Problem {
  using Format = FormatChosen;
  using Score = ScoreChosen;
  using Element = typename Format::Element;
  static constexpr int kKeyDims = Format::kKeyDims, kValueDims = Format::kValueDims;
  static constexpr int kMostDims = max(kKeyDims, kValueDims);

  // Whether a key, and a value, has a dim of this number below kMostDims.
  RF_DEVICE static constexpr bool has_key(int dim) { return kKeyDims == kMostDims || dim < kKeyDims; }
  RF_DEVICE static constexpr bool has_value(int dim) { return kValueDims == kMostDims || dim < kValueDims; }
};

}  // namespace rocmforge
