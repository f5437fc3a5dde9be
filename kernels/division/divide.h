// SPDX-License-Identifier: Apache-2.0
// Quotient and remainder by a FastDiv.
#pragma once

#include "../target/device.h"
#include "fast_div.h"

namespace rocmforge {

struct Quotient {
  int32_t quotient;
  int32_t remainder;
};

// 0 <= n < 2^31.
RF_DEVICE Quotient divide(int32_t n, FastDiv by) {
  const auto dividend = static_cast<uint64_t>(static_cast<uint32_t>(n));
  const auto quotient = static_cast<uint32_t>((dividend * by.multiplier) >> by.shift);
  return {static_cast<int32_t>(quotient), static_cast<int32_t>(static_cast<uint32_t>(n) - quotient * by.divisor)};
}

}  // namespace rocmforge
