// SPDX-License-Identifier: Apache-2.0
// How many lanes and blocks a launch has.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "runtime/kernel.h"

namespace rocmforge {

constexpr int64_t ceil_quotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Kernels number their lanes in 31 bits; throws std::length_error (ValueError in Python) for more.
inline int32_t checked_lanes(const char* op, int64_t lanes) {
  if (lanes >= int64_t{1} << 31) {
    throw std::length_error(std::string(op) + ": " + std::to_string(lanes) +
                            " lanes of work, but one launch takes fewer than 2^31; call it on parts of the tokens");
  }
  return static_cast<int32_t>(lanes);
}

inline Grid grid_of(const Kernel& kernel, int64_t lanes) {
  return {static_cast<int32_t>(ceil_quotient(lanes, kernel.config().threads)), 1, 1};
}

}  // namespace rocmforge
