// SPDX-License-Identifier: Apache-2.0
// What attention computes, as a type: a key format, a score function and a mask function. How it is computed is the
// matrix core's and the tuning's matter.
#pragma once

#include "key_format.h"
#include "mask.h"
#include "score.h"

namespace rocmforge {

template <KeyFormat FormatChosen, ScoreFunction ScoreChosen, MaskFunction MaskChosen = Windowed>
struct Problem {
  using Format = FormatChosen;
  using Score = ScoreChosen;
  using Masked = MaskChosen;
  using Element = typename Format::Element;
  static constexpr int kKeyDims = Format::kKeyDims, kValueDims = Format::kValueDims;
  static constexpr int kMostDims = max(kKeyDims, kValueDims);
  static constexpr bool kDimsShared = kValueDims > 256 || Format::kValuesInKey;  // too many for one wave

  // Whether a key has a dim of this number below kMostDims, and whether its value has one of its own.
  RF_DEVICE static constexpr bool has_key(int dim) { return kKeyDims == kMostDims || dim < kKeyDims; }
  RF_DEVICE static constexpr bool has_value(int dim) {
    return !Format::kValuesInKey && (kValueDims == kMostDims || dim < kValueDims);
  }
};

}  // namespace rocmforge
