// SPDX-License-Identifier: Apache-2.0
// Functions of floats of any format (Half, float, double), as the instructions define them. Without branches, also
// those of && and ||, so that loops of them become vector code.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "half.h"

namespace amdgpu {

template <class T>
struct Format;
template <>
struct Format<Half> {
  using Bits = uint16_t;
  using Signed = int16_t;
  static constexpr int kFraction = 10, kBias = 15;
};
template <>
struct Format<float> {
  using Bits = uint32_t;
  using Signed = int32_t;
  static constexpr int kFraction = 23, kBias = 127;
};
template <>
struct Format<double> {
  using Bits = uint64_t;
  using Signed = int64_t;
  static constexpr int kFraction = 52, kBias = 1023;
};

template <class T>
using BitsIn = typename Format<T>::Bits;

template <class T>
inline constexpr auto kSign = static_cast<BitsIn<T>>(BitsIn<T>{1} << (8 * sizeof(T) - 1));
template <class T>
inline constexpr auto kInfinity = static_cast<BitsIn<T>>((2 * Format<T>::kBias + 1ull) << Format<T>::kFraction);
template <class T>
inline constexpr auto kQuiet = static_cast<BitsIn<T>>(BitsIn<T>{1} << (Format<T>::kFraction - 1));
template <class T>
inline constexpr auto kSmallestNormal = static_cast<BitsIn<T>>(BitsIn<T>{1} << Format<T>::kFraction);

template <class T>
inline BitsIn<T> bits_of(T x) {
  return std::bit_cast<BitsIn<T>>(x);
}
template <class T>
inline T from_bits(uint64_t bits) {
  return std::bit_cast<T>(static_cast<BitsIn<T>>(bits));
}
template <class T>
inline BitsIn<T> magnitude(T x) {
  return static_cast<BitsIn<T>>(bits_of(x) & static_cast<BitsIn<T>>(~kSign<T>));
}
template <class T>
inline BitsIn<T> sign(T x) {
  return static_cast<BitsIn<T>>(bits_of(x) & kSign<T>);
}
template <class T>
inline bool is_nan(T x) {
  return magnitude(x) > kInfinity<T>;
}
template <class T>
inline bool is_infinite(T x) {
  return magnitude(x) == kInfinity<T>;
}
template <class T>
inline bool is_zero(T x) {
  return magnitude(x) == 0;
}
template <class T>
inline bool is_denormal(T x) {
  return (magnitude(x) != 0) & (magnitude(x) < kSmallestNormal<T>);
}
template <class T>
inline bool is_signalling(T x) {
  return is_nan(x) & !(bits_of(x) & kQuiet<T>);
}
template <class T>
inline T quieted(T nan) {
  return from_bits<T>(static_cast<BitsIn<T>>(bits_of(nan) | kQuiet<T>));
}

// a or b. With ?: the compiler moves what only one of them needs into a branch, which keeps a loop from becoming vector
// code.
template <class T>
inline T select(bool first, T a, T b) {
  const auto mask = static_cast<BitsIn<T>>(0u - BitsIn<T>{first});
  return from_bits<T>(static_cast<BitsIn<T>>((bits_of(a) & mask) | (bits_of(b) & static_cast<BitsIn<T>>(~mask))));
}

// The exponent's field: biased, 0 of zeros and denormals.
template <class T>
inline int exponent_field(T x) {
  return static_cast<int>(magnitude(x) >> Format<T>::kFraction);
}

// A denormal as a zero of its sign.
template <class T>
inline T flushed(T x) {
  return select(magnitude(x) < kSmallestNormal<T>, from_bits<T>(sign(x)), x);
}

// Whether a is at least b, neither being NaN: of zeros, the negative one is less.
template <class T>
inline bool at_least(T a, T b) {
  using Signed = typename Format<T>::Signed;
  const auto rank = [](T x) {
    const auto bits = static_cast<Signed>(bits_of(x));
    return static_cast<Signed>(bits ^
                               static_cast<Signed>((bits >> (8 * sizeof(T) - 1)) & static_cast<Signed>(~kSign<T>)));
  };
  return rank(a) >= rank(b);
}

// Targets whose MODE has an IEEE bit, which is set for compute kernels: a signalling NaN comes out quiet, another NaN
// gives way to the other operand.
template <class T>
inline T pick_ieee(T a, T b, T picked) {
  const T number = select(is_nan(a), b, select(is_nan(b), a, picked));
  return select(is_signalling(a), quieted(a), select(is_signalling(b), quieted(b), number));
}
// The `num` instructions: any NaN gives way.
template <class T>
inline T pick_number(T a, T b, T picked) {
  const T number = select(is_nan(a), b, select(is_nan(b), a, picked));
  return select(is_nan(a) & is_nan(b), quieted(a), number);
}
// minimum and maximum of IEEE 754-2019: any NaN comes out, a signalling one first.
template <class T>
inline T pick_nan(T a, T b, T picked) {
  const T r = select(is_nan(a) & !is_signalling(b), a, select(is_nan(b), quieted(b), picked));
  return select(is_signalling(a), quieted(a), r);
}

template <class T>
inline T larger(T a, T b) {
  return select(at_least(a, b), a, b);
}
template <class T>
inline T smaller(T a, T b) {
  return select(at_least(a, b), b, a);
}

template <class T>
inline T max_ieee(T a, T b) {
  return pick_ieee(a, b, larger(a, b));
}
template <class T>
inline T min_ieee(T a, T b) {
  return pick_ieee(a, b, smaller(a, b));
}
template <class T>
inline T max_number(T a, T b) {
  return pick_number(a, b, larger(a, b));
}
template <class T>
inline T min_number(T a, T b) {
  return pick_number(a, b, smaller(a, b));
}
template <class T>
inline T maximum(T a, T b) {
  return pick_nan(a, b, larger(a, b));
}
template <class T>
inline T minimum(T a, T b) {
  return pick_nan(a, b, smaller(a, b));
}

template <class T>
inline bool same_number(T a, T b) {
  return (bits_of(a) == bits_of(b)) | (is_zero(a) & is_zero(b));
}
template <class T>
inline T median(T a, T b, T c) {
  const T top = larger(larger(a, b), c);
  return select(same_number(top, a), larger(b, c), select(same_number(top, b), larger(a, c), larger(a, b)));
}
template <class T>
inline T median_ieee(T a, T b, T c) {
  return select(is_nan(a) | is_nan(b) | is_nan(c), min_ieee(min_ieee(a, b), c), median(a, b, c));
}
template <class T>
inline T median_number(T a, T b, T c) {
  return select(is_nan(a) | is_nan(b) | is_nan(c), min_number(min_number(a, b), c), median(a, b, c));
}

// x as C++ calculates with it, and back.
inline float widened(Half x) { return to_float(x); }
inline float widened(float x) { return x; }
inline double widened(double x) { return x; }
template <class T>
inline T narrowed(auto x) {
  if constexpr (std::is_same_v<T, Half>) return to_half(x);
  else return static_cast<T>(x);
}

template <class T>
inline T floored(T x) {
  return narrowed<T>(std::floor(widened(x)));
}
template <class T>
inline T ceiled(T x) {
  return narrowed<T>(std::ceil(widened(x)));
}
template <class T>
inline T truncated(T x) {
  return narrowed<T>(std::trunc(widened(x)));
}
template <class T>
inline T rounded_to_even(T x) {
  return narrowed<T>(std::rint(widened(x)));
}

// In [0, 1): the difference to the floor, where it rounds to 1 the number before.
template <class T>
inline T fraction(T x) {
  constexpr BitsIn<T> kBelowOne = static_cast<BitsIn<T>>((BitsIn<T>{Format<T>::kBias} << Format<T>::kFraction) - 1);
  const auto wide = widened(x);
  const T difference = narrowed<T>(wide - std::floor(wide));
  return (magnitude(difference) > kBelowOne) & !is_nan(difference) ? from_bits<T>(kBelowOne) : difference;
}

// x times 2^n, rounded once.
inline double scaled(double x, int32_t n) {
  // Of a number from [1, 2) and an exponent, the number is first brought near the smallest normal ones, exactly.
  const bool denormal = is_denormal(x);
  const double normal = select(denormal, x * 0x1p64, x);
  const int exponent = exponent_field(normal) - 1023 - (denormal ? 64 : 0) + std::clamp(n, -4000, 4000);
  const double one = as_double((as_bits(normal) & 0x800fffffffffffffu) | uint64_t{1023} << 52);
  const int e = std::clamp(exponent, -1100, 1024), first = std::clamp(e, -1022, 1023);
  const double r = one * as_double(static_cast<uint64_t>(first + 1023) << 52) *
                   as_double(static_cast<uint64_t>(e - first + 1023) << 52);
  return select(is_zero(x) | (magnitude(x) >= kInfinity<double>), x + x, r);
}
inline float scaled(float x, int32_t n) {
  const int e = std::clamp(n, -300, 300);
  return static_cast<float>(static_cast<double>(x) * as_double(static_cast<uint64_t>(e + 1023) << 52));
}
inline Half scaled(Half x, int32_t n) {
  const int e = std::clamp(n, -80, 80);
  return to_half(to_float(x) * as_float(static_cast<uint32_t>(e + 127) << 23));
}

// x as a number of magnitude [0.5, 1) times a power of two. Zeros, infinities and NaN are their own mantissas.
template <class T>
inline T mantissa(T x) {
  using Bits = BitsIn<T>;
  const bool denormal = is_denormal(x);
  const T normal = select(denormal, scaled(x, Format<T>::kFraction + 1), x);
  constexpr auto kFractionBits = static_cast<Bits>(kSmallestNormal<T> - 1);
  constexpr auto kHalf = static_cast<Bits>(Bits{Format<T>::kBias - 1} << Format<T>::kFraction);
  const T half = from_bits<T>(static_cast<Bits>((bits_of(normal) & (kFractionBits | kSign<T>)) | kHalf));
  return select(is_zero(x) | (magnitude(x) >= kInfinity<T>), select(is_nan(x), quieted(x), x), half);
}
template <class T>
inline int exponent(T x) {
  constexpr int kUp = Format<T>::kFraction + 1;
  const bool denormal = is_denormal(x);
  const T normal = select(denormal, scaled(x, kUp), x);
  const int e = exponent_field(normal) - Format<T>::kBias + 1 - (denormal ? kUp : 0);
  return is_zero(x) | (magnitude(x) >= kInfinity<T>) ? 0 : e;
}

// Towards zero; what is too large becomes the largest, NaN becomes 0.
inline int32_t to_int32(float x) {
  const float in = std::max(std::min(x, 0x1.fffffep30f), -0x1p31f);  // NaN stays: a comparison with it is false
  const int32_t r = static_cast<int32_t>(is_nan(x) ? 0.0f : in);
  return x >= 0x1p31f ? 0x7fffffff : r;
}
inline uint32_t to_uint32(float x) {
  const float in = std::max(std::min(x, 0x1.fffffep31f), 0.0f);
  const uint32_t r = static_cast<uint32_t>(is_nan(x) ? 0.0f : in);
  return x >= 0x1p32f ? 0xffffffffu : r;
}
inline int32_t to_int32(double x) {
  const double in = std::max(std::min(x, 2147483647.0), -2147483648.0);
  return static_cast<int32_t>(is_nan(x) ? 0.0 : in);
}
inline uint32_t to_uint32(double x) {
  const double in = std::max(std::min(x, 4294967295.0), 0.0);
  return static_cast<uint32_t>(is_nan(x) ? 0.0 : in);
}
inline int16_t to_int16(float x) { return static_cast<int16_t>(std::clamp(to_int32(x), -32768, 32767)); }
inline uint16_t to_uint16(float x) { return static_cast<uint16_t>(std::clamp(to_int32(x), 0, 65535)); }

// From [-1, 1] and [0, 1] to all of 16 bits, to the nearest.
inline int16_t to_snorm16(float x) {
  const float in = is_nan(x) ? 0.0f : std::max(std::min(x, 1.0f), -1.0f);
  return static_cast<int16_t>(std::rint(static_cast<double>(in) * 32767.0));
}
inline uint16_t to_unorm16(float x) {
  const float in = is_nan(x) ? 0.0f : std::max(std::min(x, 1.0f), 0.0f);
  return static_cast<uint16_t>(static_cast<int32_t>(std::rint(static_cast<double>(in) * 65535.0)));
}

// The nearest halves towards zero.
inline Half to_half_towards_zero(float x) {
  const Half near = to_half(x);
  const float back = to_float(near);
  const bool away = std::abs(back) > std::abs(x);  // also of what became infinite
  return away ? Half{static_cast<uint16_t>(near.bits - 1)} : near;
}

}  // namespace amdgpu
