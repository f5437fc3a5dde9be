// SPDX-License-Identifier: Apache-2.0
// 16-bit floats and the conversions and functions of floats that C++ does not have, all without branches, so that
// loops over lanes become vector code. Round to nearest even, denormals kept, as FLOAT_MODE 0xf0 asks.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace amdgpu {

constexpr float as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
constexpr uint32_t as_bits(float x) { return std::bit_cast<uint32_t>(x); }
constexpr double as_double(uint64_t bits) { return std::bit_cast<double>(bits); }
constexpr uint64_t as_bits(double x) { return std::bit_cast<uint64_t>(x); }

struct Half {
  uint16_t bits;
};

inline float to_float(Half h) {
  const uint32_t magnitude = (h.bits & 0x7fffu) << 13, sign = (h.bits & 0x8000u) << 16;
  const uint32_t normal = magnitude + ((127 - 15) << 23);
  const uint32_t special = magnitude + ((255 - 31) << 23);
  // A denormal is a multiple of 2^-24, which a float holds exactly.
  const uint32_t tiny = as_bits(static_cast<float>(static_cast<int32_t>(h.bits & 0x3ff)) * 0x1p-24f);
  const uint32_t exponent = h.bits & 0x7c00u;
  const uint32_t bits = exponent == 0x7c00u ? special : exponent == 0 ? tiny : normal;
  return as_float(bits | sign);
}

inline Half to_half(float x) {
  const uint32_t bits = as_bits(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  // Adding this moves a denormal result's last bit to the float's last bit, and so rounds it.
  const uint32_t tiny = as_bits(as_float(magnitude) + 0.5f) - as_bits(0.5f);
  const uint32_t normal = (magnitude - ((127 - 15) << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const uint32_t quiet = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  const uint32_t result = magnitude > 0x7f800000u    ? quiet
                          : magnitude >= 0x477ff000u ? 0x7c00u
                          : magnitude < 0x38800000u  ? tiny
                                                     : normal;
  return Half{static_cast<uint16_t>(result | sign)};
}

// The sum rounded to odd, so that rounding it again, to fewer than 51 bits, rounds once.
inline double add_to_odd(double a, double b) {
  const double sum = a + b;
  const double b_part = sum - a, error = (a - (sum - b_part)) + (b - b_part);
  const uint64_t bits = as_bits(sum);
  // Towards the error if something is left and the last bit is even.
  const bool move = error != 0 && (bits & 1) == 0 && std::abs(sum) <= 0x1.fffffffffffffp1023;
  const uint64_t step = (error > 0) == (sum > 0) ? 1 : ~uint64_t{0};
  return as_double(move ? bits + step : bits);
}

inline Half to_half(double x) {
  // Through a float that was rounded to odd: 24 bits are 13 more than a half has.
  const float near = static_cast<float>(x);
  const double error = x - static_cast<double>(near);
  const uint32_t bits = as_bits(near);
  const bool move = error != 0 && (bits & 1) == 0 && (bits & 0x7fffffffu) < 0x7f800000u;
  const uint32_t step = (error > 0) == (near > 0 || (near == 0 && error > 0)) ? 1u : ~0u;
  return to_half(as_float(move ? bits + step : bits));
}

inline Half fma(Half a, Half b, Half c) {
  const double product = static_cast<double>(to_float(a)) * static_cast<double>(to_float(b));
  return to_half(add_to_odd(product, static_cast<double>(to_float(c))));
}

inline float bf16_to_float(uint32_t bits) { return as_float(bits << 16); }

inline uint32_t float_to_bf16(float x) {
  const uint32_t bits = as_bits(x);
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16 | 0x40u) : rounded;
}

}  // namespace amdgpu
