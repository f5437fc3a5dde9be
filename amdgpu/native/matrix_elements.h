// SPDX-License-Identifier: Apache-2.0
// Elements of the operands of matrix instructions: how many bits each takes in a register, and its value.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "half.h"

namespace amdgpu::matrix_element {

// A denormal becomes a zero of its sign; its exponent's bits are all zero, and only then.
inline uint32_t flushed(uint32_t bits, uint32_t exponent, uint32_t sign) { return bits & exponent ? bits : bits & sign; }
inline float flushed(float x) { return as_float(flushed(as_bits(x), 0x7f800000u, 0x80000000u)); }

struct F32 {
  static constexpr int kBits = 32;
  using Value = float;
  static float value(uint32_t bits) { return as_float(bits); }
};

// Of the instructions of MI200 that AMD documents as flushing denormals of 16-bit operands, and of results, to zero:
// "MI200 matrix fused multiply-add (MFMA) behavior specifics", MIOpen's documentation.
template <bool Flush>
struct F16 {
  static constexpr int kBits = 16;
  using Value = float;
  static float value(uint32_t bits) {
    if constexpr (Flush) bits = flushed(bits & 0xffffu, 0x7c00u, 0x8000u);
    return to_float(Half{static_cast<uint16_t>(bits)});
  }
};

template <bool Flush>
struct Bf16 {
  static constexpr int kBits = 16;
  using Value = float;
  static float value(uint32_t bits) {
    if constexpr (Flush) bits = flushed(bits & 0xffffu, 0x7f80u, 0x8000u);
    return bf16_to_float(bits);
  }
};

enum class Specials { kIeee, kNanOnly, kFnuz };

// Values of all 8-bit floats of a format. kIeee has infinities; kNanOnly has none, and one NaN of each sign; kFnuz has
// neither them nor a negative zero, whose code is the NaN.
template <int Mantissa, int Bias, Specials S>
constexpr std::array<float, 256> small_floats() {
  std::array<float, 256> values{};
  constexpr int kExponents = 1 << (7 - Mantissa), kFractions = 1 << Mantissa;
  for (int code = 0; code < 256; ++code) {
    const int exponent = code >> Mantissa & (kExponents - 1), fraction = code & (kFractions - 1);
    float value = static_cast<float>(exponent ? fraction + kFractions : fraction);
    for (int e = (exponent ? exponent : 1) - Bias - Mantissa; e != 0; e += e < 0 ? 1 : -1) value *= e < 0 ? 0.5f : 2.0f;
    const bool top = exponent == kExponents - 1;
    if (S == Specials::kIeee && top) {
      value = fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
    }
    if (S == Specials::kNanOnly && top && fraction == kFractions - 1) value = std::numeric_limits<float>::quiet_NaN();
    if (S == Specials::kFnuz && code == 128) value = std::numeric_limits<float>::quiet_NaN();
    values[static_cast<size_t>(code)] = code & 128 ? -value : value;
  }
  return values;
}

template <int Mantissa, int Bias, Specials S>
struct SmallFloat {
  static constexpr int kBits = 8;
  using Value = float;
  static constexpr std::array<float, 256> kValues = small_floats<Mantissa, Bias, S>();
  static float value(uint32_t bits) { return kValues[bits & 0xffu]; }
};

using Fp8 = SmallFloat<3, 7, Specials::kNanOnly>;
using Bf8 = SmallFloat<2, 15, Specials::kIeee>;
using Fp8Fnuz = SmallFloat<3, 8, Specials::kFnuz>;
using Bf8Fnuz = SmallFloat<2, 16, Specials::kFnuz>;

template <bool Signed>
struct Int8 {
  static constexpr int kBits = 8;
  using Value = int32_t;
  static int32_t value(uint32_t bits) { return Signed ? static_cast<int8_t>(bits) : static_cast<uint8_t>(bits); }
};

}  // namespace amdgpu::matrix_element
