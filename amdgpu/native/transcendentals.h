// SPDX-License-Identifier: Apache-2.0
// Functions that instructions only approximate. The last bit of their results is not known here, so results of programs
// must not hang on it: tests run kernels with each of these roundings.
#pragma once

#include <cmath>
#include <cstdint>

#include "floats.h"

namespace amdgpu {

// Which of a format's numbers around the exact result an instruction gives; one that is exact is always given.
enum class Rounding : int { kNearest, kBelow, kAbove };

// Of the whole process; changed only while nothing runs.
inline Rounding transcendental_rounding = Rounding::kNearest;

namespace detail {

// The number of T next to `near` that lies on the other side of `exact`, if R asks for that side.
template <Rounding R, class T>
inline T placed(T near, double difference, double exact) {
  if constexpr (R == Rounding::kNearest) return near;
  // What is calculated is not exact itself; half and float leave much room below this. What is too large or too small
  // for the format stays infinite or zero.
  const bool is_exact = !(std::abs(difference) > std::abs(exact) * 0x1p-44) | is_infinite(near) | is_zero(near);
  const bool move = !is_exact & (R == Rounding::kBelow ? difference < 0 : difference > 0);
  const bool grows = (R == Rounding::kAbove) == !sign(near);  // in magnitude
  const auto bits = bits_of(near);
  return select(move, from_bits<T>(static_cast<BitsIn<T>>(grows ? bits + 1 : bits - 1)), near);
}

}  // namespace detail

// A result that was calculated in double, as a T.
template <Rounding R, class T>
inline T finish(double exact) {
  const T near = narrowed<T>(exact);
  return detail::placed<R>(near, exact - static_cast<double>(widened(near)), exact);
}

// 2^x within 2^-34 of its size; exact for integers.
inline double exp2_near(float x) {
  const float in = std::max(std::min(x, 300.0f), -300.0f);
  const float whole = std::rint(in);
  const auto f = static_cast<double>(in - whole);
  double q = 0x1.00dc48d7f5cbfp-16;
  q = std::fma(q, f, 0x1.4440030d4f014p-13);
  q = std::fma(q, f, 0x1.5d874c81f2fcfp-10);
  q = std::fma(q, f, 0x1.3b2a1b6d4077fp-7);
  q = std::fma(q, f, 0x1.c6b08dc5de563p-5);
  q = std::fma(q, f, 0x1.ebfbe045f8ea9p-3);
  q = std::fma(q, f, 0x1.62e42fef95ed2p-1);
  const double one = std::fma(q, f, 1.0);
  const auto n = static_cast<int64_t>(static_cast<int32_t>(whole));
  return as_double(as_bits(one) + (static_cast<uint64_t>(n) << 52));
}
// The result of NaN is NaN.
template <Rounding R, class T>
inline T exp2_of(T x) {
  const T r = finish<R, T>(exp2_near(is_nan(x) ? 0.0f : widened(x)));
  return select(is_nan(x), quieted(x), r);
}

// log2 of a positive, finite number that is normal as a double.
inline double log2_near(double x) {
  // x = m 2^e, m from the square root of a half to that of two, and log2 m = 2 atanh((m - 1) / (m + 1)) / ln 2
  constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcdu;
  const uint64_t up = as_bits(x) - kRootHalf;
  const auto e = static_cast<int64_t>(up) >> 52;
  const double m = as_double(as_bits(x) - (static_cast<uint64_t>(e) << 52));
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  constexpr double kTwoByLn2 = 2.8853900817779268;
  double q = kTwoByLn2 / 19;
  q = std::fma(q, z, kTwoByLn2 / 17);
  q = std::fma(q, z, kTwoByLn2 / 15);
  q = std::fma(q, z, kTwoByLn2 / 13);
  q = std::fma(q, z, kTwoByLn2 / 11);
  q = std::fma(q, z, kTwoByLn2 / 9);
  q = std::fma(q, z, kTwoByLn2 / 7);
  q = std::fma(q, z, kTwoByLn2 / 5);
  q = std::fma(q, z, kTwoByLn2 / 3);
  q = std::fma(q, z, kTwoByLn2);
  return std::fma(q, s, static_cast<double>(static_cast<int32_t>(e)));
}
template <Rounding R, class T>
inline T log2_of(T x) {
  const bool usual = !sign(x) & !is_zero(x) & (magnitude(x) < kInfinity<T>);
  const T r = finish<R, T>(log2_near(usual ? static_cast<double>(widened(x)) : 1.0));
  const T invalid = from_bits<T>(kInfinity<T> | kQuiet<T> | kSign<T>), below = from_bits<T>(kInfinity<T> | kSign<T>);
  const T unusual = select(is_nan(x), quieted(x), select(is_zero(x), below, select(sign(x) != 0, invalid, x)));
  return select(usual, r, unusual);
}

template <Rounding R, class T>
inline T reciprocal(T x) {
  if constexpr (R == Rounding::kNearest && std::is_same_v<T, float>) return 1.0f / x;
  return finish<R, T>(1.0 / static_cast<double>(widened(x)));
}
template <Rounding R, class T>
inline T square_root(T x) {
  if constexpr (R == Rounding::kNearest && std::is_same_v<T, float>) return std::sqrt(x);
  return finish<R, T>(std::sqrt(static_cast<double>(widened(x))));
}
template <Rounding R, class T>
inline T reciprocal_square_root(T x) {
  return finish<R, T>(1.0 / std::sqrt(static_cast<double>(widened(x))));
}

// The sine of 2 pi r, for r from a quarter below to a quarter above zero.
inline double sine_near(double r) {
  const double x = r * 6.2831853071795862, z = x * x;
  double q = -1.0 / 121645100408832000.0;
  q = std::fma(q, z, 1.0 / 355687428096000.0);
  q = std::fma(q, z, -1.0 / 1307674368000.0);
  q = std::fma(q, z, 1.0 / 6227020800.0);
  q = std::fma(q, z, -1.0 / 39916800.0);
  q = std::fma(q, z, 1.0 / 362880.0);
  q = std::fma(q, z, -1.0 / 5040.0);
  q = std::fma(q, z, 1.0 / 120.0);
  q = std::fma(q, z, -1.0 / 6.0);
  return x * std::fma(q, z, 1.0);
}
// In whole turns, as the instructions have it.
template <Rounding R, class T>
inline T sine(T x) {
  const auto turns = static_cast<double>(widened(x));
  const double r = turns == 0 ? turns : turns - std::rint(turns);
  return finish<R, T>(sine_near(std::abs(r) > 0.25 ? std::copysign(0.5, r) - r : r));
}
template <Rounding R, class T>
inline T cosine(T x) {
  const auto turns = static_cast<double>(widened(x));
  return finish<R, T>(sine_near(0.25 - std::abs(turns - std::rint(turns))));
}

// Doubles are approximated to about the precision of floats: AMD's documents give 2^29 of a double's last places.
template <Rounding R>
inline double roughly(double near, bool exact) {
  constexpr uint64_t kSteps = uint64_t{1} << 28;
  if constexpr (R == Rounding::kNearest) return near;
  const bool grows = (R == Rounding::kAbove) == !sign(near);
  const bool stays = exact | is_zero(near) | (magnitude(near) >= kInfinity<double>);
  return as_double(stays ? as_bits(near) : grows ? as_bits(near) + kSteps : as_bits(near) - kSteps);
}

}  // namespace amdgpu
