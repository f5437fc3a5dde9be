// SPDX-License-Identifier: Apache-2.0
// Dot products within a lane. Products are exact; the order in which floats are added is a setting (matrix.h).
#include <array>

#include "elementwise.h"
#include "floats.h"
#include "integers.h"
#include "matrix.h"
#include "small_float.h"
#include "tables.h"

namespace amdgpu {

namespace {

float bf16(uint16_t bits) { return bf16_to_float(bits); }

// The sum of the products of N pairs of floats and of `last`.
template <AdditionOrder Order, size_t N>
float sum(const std::array<float, N>& a, const std::array<float, N>& b, float last) {
  if constexpr (Order == AdditionOrder::kAscending) {
#pragma GCC unroll 8
    for (size_t k = 0; k < N; ++k) last = std::fma(a[k], b[k], last);
    return last;
  } else if constexpr (Order == AdditionOrder::kDescending) {
#pragma GCC unroll 8
    for (size_t k = N; k-- > 0;) last = std::fma(a[k], b[k], last);
    return last;
  } else if constexpr (N == 2) {
    return std::fma(a[0], b[0], a[1] * b[1]) + last;
  } else {
    return (std::fma(a[0], b[0], a[1] * b[1]) + std::fma(a[2], b[2], a[3] * b[3])) + last;
  }
}

constexpr auto kAscending = AdditionOrder::kAscending, kDescending = AdditionOrder::kDescending,
               kPairwise = AdditionOrder::kPairwise;

template <AdditionOrder Order>
constexpr auto kDot2F16 = [](HalfPair a, HalfPair b, float c) {
  return sum<Order, 2>({to_float(a.low()), to_float(a.high())}, {to_float(b.low()), to_float(b.high())}, c);
};
template <AdditionOrder Order>
constexpr auto kDot2Bf16 = [](Pair a, Pair b, float c) {
  return sum<Order, 2>({bf16(a.low()), bf16(a.high())}, {bf16(b.low()), bf16(b.high())}, c);
};

// Of 16-bit results, each addition is rounded to them.
template <AdditionOrder Order>
constexpr auto kDot2ToF16 = [](HalfPair a, HalfPair b, Half c) {
  if constexpr (Order == kAscending) return fma(a.high(), b.high(), fma(a.low(), b.low(), c));
  else if constexpr (Order == kDescending) return fma(a.low(), b.low(), fma(a.high(), b.high(), c));
  else return to_half(to_float(fma(a.low(), b.low(), to_half(to_float(a.high()) * to_float(b.high())))) + to_float(c));
};
template <AdditionOrder Order>
constexpr auto kDot2ToBf16 = [](Pair a, Pair b, uint16_t c) {
  const auto rounded = [](float x) { return bf16_to_float(float_to_bf16(x)); };
  const float low = bf16(a.low()) * bf16(b.low()), high = bf16(a.high()) * bf16(b.high());
  float all;
  if constexpr (Order == kAscending) all = rounded(bf16(c) + low) + high;
  else if constexpr (Order == kDescending) all = rounded(bf16(c) + high) + low;
  else all = rounded(low + high) + bf16(c);
  return static_cast<uint16_t>(float_to_bf16(all));
};

template <class A, class B, AdditionOrder Order>
constexpr auto kDot4Small = [](uint32_t a, uint32_t b, float c) {
  std::array<float, 4> x, y;
#pragma GCC unroll 8
  for (size_t k = 0; k < 4; ++k) x[k] = from_small<A>(a >> 8 * k), y[k] = from_small<B>(b >> 8 * k);
  return sum<Order, 4>(x, y, c);
};

// The element at `at` of Bits bits.
template <int Bits>
int64_t element(uint32_t word, int at, bool has_sign) {
  const uint32_t up = word << (32 - Bits - at);
  return has_sign ? int64_t{static_cast<int32_t>(up) >> (32 - Bits)} : int64_t{up >> (32 - Bits)};
}

// All elements of two words and a number; integers do not care about the order.
template <int Bits>
int64_t dot(Integers a, Integers b, int64_t c) {
#pragma GCC unroll 8
  for (int at = 0; at < 32; at += Bits)
    c += element<Bits>(a.word, at, a.has_signs) * element<Bits>(b.word, at, b.has_signs);
  return c;
}
template <int Bits>
constexpr auto kSigned =
    [](uint32_t a, uint32_t b, int32_t c) { return static_cast<int32_t>(dot<Bits>({a, 1}, {b, 1}, c)); };
template <int Bits>
constexpr auto kSignedClamped =
    [](uint32_t a, uint32_t b, int32_t c) { return saturated<int32_t>(dot<Bits>({a, 1}, {b, 1}, c)); };
template <int Bits>
constexpr auto kUnsigned =
    [](uint32_t a, uint32_t b, uint32_t c) { return static_cast<uint32_t>(dot<Bits>({a, 0}, {b, 0}, c)); };
template <int Bits>
constexpr auto kUnsignedClamped =
    [](uint32_t a, uint32_t b, uint32_t c) { return saturated<uint32_t>(dot<Bits>({a, 0}, {b, 0}, c)); };
template <int Bits>
constexpr auto kEither = [](Integers a, Integers b, int32_t c) { return static_cast<int32_t>(dot<Bits>(a, b, c)); };
template <int Bits>
constexpr auto kEitherClamped =
    [](Integers a, Integers b, int32_t c) { return saturated<int32_t>(dot<Bits>(a, b, c)); };

}  // namespace

Handlers vector_dot() {
  static const Handler table[] = {
      lanes_by<addition_order, kDot2F16<kAscending>, kDot2F16<kDescending>, kDot2F16<kPairwise>>("v_dot2_f32_f16"),
      lanes_by<addition_order, kDot2F16<kAscending>, kDot2F16<kDescending>, kDot2F16<kPairwise>>("v_dot2c_f32_f16"),
      lanes_by<addition_order, kDot2Bf16<kAscending>, kDot2Bf16<kDescending>, kDot2Bf16<kPairwise>>("v_dot2_f32_bf16"),
      lanes_by<addition_order, kDot2Bf16<kAscending>, kDot2Bf16<kDescending>, kDot2Bf16<kPairwise>>("v_dot2c_f32_bf16"),
      lanes_by<addition_order, kDot2ToF16<kAscending>, kDot2ToF16<kDescending>, kDot2ToF16<kPairwise>>(
          "v_dot2_f16_f16"),
      lanes_by<addition_order, kDot2ToBf16<kAscending>, kDot2ToBf16<kDescending>, kDot2ToBf16<kPairwise>>(
          "v_dot2_bf16_bf16"),
      lanes_by<addition_order, kDot4Small<Fp8, Fp8, kAscending>, kDot4Small<Fp8, Fp8, kDescending>,
               kDot4Small<Fp8, Fp8, kPairwise>>("v_dot4_f32_fp8_fp8"),
      lanes_by<addition_order, kDot4Small<Fp8, Bf8, kAscending>, kDot4Small<Fp8, Bf8, kDescending>,
               kDot4Small<Fp8, Bf8, kPairwise>>("v_dot4_f32_fp8_bf8"),
      lanes_by<addition_order, kDot4Small<Bf8, Fp8, kAscending>, kDot4Small<Bf8, Fp8, kDescending>,
               kDot4Small<Bf8, Fp8, kPairwise>>("v_dot4_f32_bf8_fp8"),
      lanes_by<addition_order, kDot4Small<Bf8, Bf8, kAscending>, kDot4Small<Bf8, Bf8, kDescending>,
               kDot4Small<Bf8, Bf8, kPairwise>>("v_dot4_f32_bf8_bf8"),

      lanes<kSigned<16>>("v_dot2_i32_i16"),
      lanes<kSignedClamped<16>>("v_dot2_i32_i16_clamp"),
      lanes<kSigned<16>>("v_dot2c_i32_i16"),
      lanes<kUnsigned<16>>("v_dot2_u32_u16"),
      lanes<kUnsignedClamped<16>>("v_dot2_u32_u16_clamp"),
      lanes<kSigned<8>>("v_dot4_i32_i8"),
      lanes<kSignedClamped<8>>("v_dot4_i32_i8_clamp"),
      lanes<kSigned<8>>("v_dot4c_i32_i8"),
      lanes<kUnsigned<8>>("v_dot4_u32_u8"),
      lanes<kUnsignedClamped<8>>("v_dot4_u32_u8_clamp"),
      lanes<kEither<8>>("v_dot4_i32_iu8"),
      lanes<kEitherClamped<8>>("v_dot4_i32_iu8_clamp"),
      lanes<kSigned<4>>("v_dot8_i32_i4"),
      lanes<kSignedClamped<4>>("v_dot8_i32_i4_clamp"),
      lanes<kSigned<4>>("v_dot8c_i32_i4"),
      lanes<kUnsigned<4>>("v_dot8_u32_u4"),
      lanes<kUnsignedClamped<4>>("v_dot8_u32_u4_clamp"),
      lanes<kEither<4>>("v_dot8_i32_iu4"),
      lanes<kEitherClamped<4>>("v_dot8_i32_iu4_clamp"),
  };
  return table;
}

}  // namespace amdgpu
