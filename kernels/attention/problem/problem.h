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
  static constexpr bool kLatent = Format::kValuesInKey;  // too many dims for one wave

  // Whether a key has a dim of this number below kMostDims, and whether its value has one of its own.
  RF_DEVICE static constexpr bool has_key(int dim) { return kKeyDims == kMostDims || dim < kKeyDims; }
  RF_DEVICE static constexpr bool has_value(int dim) {
    return !Format::kValuesInKey && (kValueDims == kMostDims || dim < kValueDims);
  }
};

}  // namespace rocmforge
