// SPDX-License-Identifier: Apache-2.0
// Functions of integers that several tables use.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace amdgpu {

// The nearest number that T has.
template <class T>
inline T saturated(int32_t x) {
  static_assert(sizeof(T) == 2);
  return static_cast<T>(std::clamp(x, int32_t{std::numeric_limits<T>::min()}, int32_t{std::numeric_limits<T>::max()}));
}
template <class T>
inline T saturated(int64_t x) {
  return static_cast<T>(std::clamp(x, int64_t{std::numeric_limits<T>::min()}, int64_t{std::numeric_limits<T>::max()}));
}

// Bit by bit what the table has at the number whose bits are those of a, b and c.
inline uint32_t by_truth_table(uint32_t a, uint32_t b, uint32_t c, uint32_t table) {
  uint32_t r = 0;
#pragma GCC unroll 8
  for (uint32_t at = 0; at < 8; ++at) {
    const uint32_t rows = (at & 4 ? a : ~a) & (at & 2 ? b : ~b) & (at & 1 ? c : ~c);
    r |= rows & (0u - (table >> at & 1u));
  }
  return r;
}

}  // namespace amdgpu
