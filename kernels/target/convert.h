// SPDX-License-Identifier: Apache-2.0
// float <-> storage types, round to nearest even. The target supplies f16_to_float, float_to_f16, low_halves and
// high_halves.
#pragma once

namespace rocmforge {

RF_DEVICE float to_float(float x) { return x; }
RF_DEVICE float to_float(bf16 x) { return bits_to_float(static_cast<uint32_t>(x.bits) << 16); }
RF_DEVICE float to_float(f16 x) { return f16_to_float(x.bits); }

namespace detail {

RF_DEVICE uint32_t round_to_bf16(uint32_t bits) { return bits + 0x7fffu + ((bits >> 16) & 1u); }

template <class T>
struct FromFloat;

template <>
struct FromFloat<float> {
  RF_DEVICE static float of(float x) { return x; }
};

template <>
struct FromFloat<f16> {
  RF_DEVICE static f16 of(float x) { return f16{float_to_f16(x)}; }
};

template <>
struct FromFloat<bf16> {
  RF_DEVICE static bf16 of(float x) {
    const uint32_t bits = float_to_bits(x);
    // Rounding could carry a NaN's payload into the exponent and out of it: keep NaN a quiet NaN.
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return bf16{static_cast<uint16_t>((nan ? bits | 0x400000u : round_to_bf16(bits)) >> 16)};
  }
};

}  // namespace detail

template <class T>
RF_DEVICE T from_float(float x) {
  return detail::FromFloat<T>::of(x);
}

// A value known not to be NaN, such as a probability: two VALU instructions fewer for bf16.
template <class T>
RF_DEVICE T from_finite(float x) {
  return from_float<T>(x);
}
template <>
RF_DEVICE bf16 from_finite<bf16>(float x) {
  return bf16{static_cast<uint16_t>(detail::round_to_bf16(float_to_bits(x)) >> 16)};
}

// Two such values as one word, the first below. A target with an instruction for it defines RF_PACK2_BF16.
template <class T>
RF_DEVICE uint32_t pack2_finite(float a, float b) {
#if defined(RF_PACK2_BF16)
  if constexpr (__is_same(T, bf16)) return pack2_bf16(a, b);
#endif
  if constexpr (__is_same(T, bf16))
    return high_halves(detail::round_to_bf16(float_to_bits(a)), detail::round_to_bf16(float_to_bits(b)));
  else return from_finite<T>(a).bits | static_cast<uint32_t>(from_finite<T>(b).bits) << 16;
}

// Likewise, but ties may go up: for probabilities, of which one in 65536 is a tie. Saves bf16 a VALU instruction each.
template <class T>
RF_DEVICE uint32_t pack2_near(float a, float b) {
#if !defined(RF_PACK2_BF16)
  if constexpr (__is_same(T, bf16)) return high_halves(float_to_bits(a) + 0x8000u, float_to_bits(b) + 0x8000u);
#endif
  return pack2_finite<T>(a, b);
}

}  // namespace rocmforge
