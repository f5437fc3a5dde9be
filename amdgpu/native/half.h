// SPDX-License-Identifier: Apache-2.0
// 16-bit floats and the conversions and functions of floats that C++ does not have, all without branches, so that
// loops over lanes become vector code. Round to nearest even, denormals kept, as FLOAT_MODE 0xf0 asks.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

namespace amdgpu {

constexpr float as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
constexpr uint32_t as_bits(float x) { return std::bit_cast<uint32_t>(x); }
constexpr double as_double(uint64_t bits) { return std::bit_cast<double>(bits); }
constexpr uint64_t as_bits(double x) { return std::bit_cast<uint64_t>(x); }

struct Half {
  uint16_t bits;
};

// Comparisons are of signed numbers, and of ones that take more than 16 bits, as most machines have those of vectors.
inline float to_float(Half h) {
  const uint32_t wide = h.bits, sign = (wide & 0x8000u) << 16;
  const auto magnitude = static_cast<int32_t>((wide & 0x7fffu) << 13);
  const int32_t normal = magnitude + ((127 - 15) << 23);
  const int32_t special = magnitude + ((255 - 31) << 23);
  // A denormal is a multiple of 2^-24, which a float holds exactly.
  const auto tiny = static_cast<int32_t>(as_bits(static_cast<float>(magnitude) * 0x1p-37f));
  const int32_t bits = magnitude >= 31 << 23 ? special : magnitude < 1 << 23 ? tiny : normal;
  return as_float(static_cast<uint32_t>(bits) | sign);
}

inline Half to_half(float x) {
  const uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000u;
  const auto magnitude = static_cast<int32_t>(bits & 0x7fffffffu);
  // Adding this moves a denormal result's last bit to the float's last bit, and so rounds it.
  const auto tiny = static_cast<int32_t>(as_bits(as_float(bits & 0x7fffffffu) + 0.5f) - as_bits(0.5f));
  const int32_t normal = (magnitude - ((127 - 15) << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;
  const int32_t quiet = 0x7e00 | (magnitude >> 13 & 0x3ff);
  const int32_t result = magnitude > 0x7f800000    ? quiet
                         : magnitude >= 0x477ff000 ? 0x7c00
                         : magnitude < 0x38800000  ? tiny
                                                   : normal;
  return Half{static_cast<uint16_t>(static_cast<uint32_t>(result) | sign)};
}

// The sum rounded to odd, so that rounding it again, to a format with at least two bits less, rounds once.
template <class T>
inline T add_to_odd(T a, T b) {
  using Bits = decltype(as_bits(T{}));
  const T sum = a + b;
  const T b_part = sum - a, error = (a - (sum - b_part)) + (b - b_part);
  // Towards the error if something is left and the last bit is even. An infinite sum leaves NaN, which is no error.
  constexpr Bits kInfinite = std::is_same_v<T, float> ? Bits{0x7f800000u} : static_cast<Bits>(0x7ff0000000000000u);
  const Bits bits = as_bits(sum), left = as_bits(error) << 1 >> 1;
  const Bits apart = (as_bits(error) ^ as_bits(sum)) >> (8 * sizeof(T) - 1);
  const Bits step = 1 | (0 - apart);
  const Bits even = 0 - (~bits & 1);
  return std::bit_cast<T>(bits + (even & (left - 1 < kInfinite ? step : 0)));
}

inline Half to_half(double x) {
  // Through a float that was rounded to odd: 24 bits are 13 more than a half has.
  const float near = static_cast<float>(x);
  const double error = x - static_cast<double>(near);
  const uint32_t bits = as_bits(near), even = 0 - (~bits & 1);
  const uint32_t apart = static_cast<uint32_t>((as_bits(error) ^ as_bits(x)) >> 63);
  const bool inexact = (error != 0) & ((bits & 0x7fffffffu) < 0x7f800000u);
  return to_half(as_float(bits + (even & (inexact ? 1 | (0 - apart) : 0))));
}

inline Half fma(Half a, Half b, Half c) {
  const float product = to_float(a) * to_float(b);  // exact: 22 bits
  return to_half(add_to_odd(product, to_float(c)));
}

inline float bf16_to_float(uint32_t bits) { return as_float(bits << 16); }

inline uint32_t float_to_bf16(float x) {
  const uint32_t bits = as_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded;
}

}  // namespace amdgpu
