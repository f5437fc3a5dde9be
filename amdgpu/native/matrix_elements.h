// SPDX-License-Identifier: Apache-2.0
// Elements of the operands of matrix instructions: how many bits each takes in a register, and its value.
#pragma once

#include <cstdint>

#include "half.h"
#include "small_float.h"

namespace amdgpu::matrix_element {

// A denormal becomes a zero of its sign; its exponent's bits are all zero, and only then.
inline uint32_t flushed(uint32_t bits, uint32_t exponent, uint32_t sign) {
  return bits & exponent ? bits : bits & sign;
}
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

// Of a format of small_float.h.
template <class Format>
struct Small {
  static constexpr int kBits = 8;
  using Value = float;
  static float value(uint32_t bits) { return from_small<Format>(bits); }
};

template <bool Signed>
struct Int8 {
  static constexpr int kBits = 8;
  using Value = int32_t;
  static int32_t value(uint32_t bits) { return Signed ? static_cast<int8_t>(bits) : static_cast<uint8_t>(bits); }
};

}  // namespace amdgpu::matrix_element
