// SPDX-License-Identifier: Apache-2.0
// Conversions from and to floats of 8 bits: fp8 (E4M3) and bf8 (E5M2), as OCP defines them and, where neither
// infinities nor a negative zero exist (fnuz), as gfx942 does. Without branches.
#pragma once

#include <cstdint>

#include "floats.h"
#include "lane_types.h"

namespace amdgpu {

// kLargest is the code of the largest finite number, kOverflow of what is larger and of infinities, kNan of NaN.
struct Fp8 {
  static constexpr int kFraction = 3, kBias = 7;
  static constexpr uint32_t kLargest = 0x7e, kOverflow = 0x7f, kNan = 0x7f;
  static constexpr bool kFnuz = false;
};
struct Bf8 {
  static constexpr int kFraction = 2, kBias = 15;
  static constexpr uint32_t kLargest = 0x7b, kOverflow = 0x7c, kNan = 0x7f;
  static constexpr bool kFnuz = false;
};
struct Fp8Fnuz {
  static constexpr int kFraction = 3, kBias = 8;
  static constexpr uint32_t kLargest = 0x7f, kOverflow = 0x80, kNan = 0x80;
  static constexpr bool kFnuz = true;
};
struct Bf8Fnuz {
  static constexpr int kFraction = 2, kBias = 16;
  static constexpr uint32_t kLargest = 0x7f, kOverflow = 0x80, kNan = 0x80;
  static constexpr bool kFnuz = true;
};

// Of the low byte.
template <class S>
inline float from_small(uint32_t code) {
  const uint32_t magnitude = code & 0x7f, sign = code << 24 & 0x80000000u;
  const uint32_t normal = (magnitude << (23 - S::kFraction)) + ((127 - S::kBias) << 23);
  constexpr float kStep = as_float((127u + 1 - S::kBias - S::kFraction) << 23);  // between denormals
  const uint32_t tiny = as_bits(static_cast<float>(static_cast<int32_t>(magnitude)) * kStep);
  const uint32_t bits = magnitude >> S::kFraction ? normal : tiny;
  if constexpr (S::kFnuz) return as_float((code & 0xff) == S::kNan ? 0x7fc00000u : bits | sign);
  const uint32_t special = magnitude == S::kOverflow && S::kOverflow != S::kNan ? 0x7f800000u : 0x7fc00000u;
  return as_float((magnitude > S::kLargest ? special : bits) | sign);
}

// To the nearest; what is too large becomes NaN, or infinity where the format has it (MODE.FP16_OVFL is 0).
template <class S>
inline uint32_t to_small(float x) {
  constexpr int kDropped = 23 - S::kFraction;
  const uint32_t bits = as_bits(x), size = bits & 0x7fffffffu, sign = bits >> 24 & 0x80u;
  constexpr float kUp = as_float((127u + 1 - S::kBias - S::kFraction + 23) << 23);  // its last bit is a denormal's
  const uint32_t tiny = as_bits(as_float(size) + kUp) - as_bits(kUp);
  const uint32_t normal =
      (size - ((127 - S::kBias) << 23) + (1u << (kDropped - 1)) - 1 + (size >> kDropped & 1u)) >> kDropped;
  const uint32_t rounded = size < (128u - S::kBias) << 23 ? tiny : normal;
  const uint32_t code = size > 0x7f800000u ? S::kNan : rounded > S::kLargest ? S::kOverflow : rounded;
  if constexpr (S::kFnuz) return code == 0 ? 0 : code | sign;
  return code | sign;
}

template <class S>
inline FloatPair pair_from_small(uint32_t codes) {
  return pair(from_small<S>(codes), from_small<S>(codes >> 8));
}
template <class S>
inline uint16_t pair_to_small(float a, float b) {
  return static_cast<uint16_t>(to_small<S>(a) | to_small<S>(b) << 8);
}

}  // namespace amdgpu
