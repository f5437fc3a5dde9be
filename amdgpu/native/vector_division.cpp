// SPDX-License-Identifier: Apache-2.0
// The steps with which compiled code divides floats, rounded as IEEE 754 asks: scale numerator and denominator, take
// v_rcp's approximation, improve the quotient with fma, the last one of which undoes the scaling, and mend what is
// special.
//
// They follow the pseudo-code of AMD's documents except where it contradicts what the steps are for. There the final
// fma always multiplies by 2^32 (2^64 for doubles), which undoes none of the scalings; a denominator whose reciprocal
// is denormal is scaled up in one case, to infinity; a quotient that is rounded to zero counts as no denormal one; and
// the NaN that an infinite quotient leaves behind stays.
#include "elementwise.h"
#include "floats.h"
#include "tables.h"

namespace amdgpu {

namespace {

template <class T>
struct Steps;
template <>
struct Steps<float> {
  static constexpr int kNearMax = 96, kTiny = 23, kScale = 64, kUnderflow = -150;
};
template <>
struct Steps<double> {
  static constexpr int kNearMax = 768, kTiny = 53, kScale = 128, kUnderflow = -1075;
};

// Of the value to scale, the denominator and the numerator; the value is one of them. The second result says that the
// quotient must be scaled back.
template <class T>
WithMask<T> scale(T value, T denominator, T numerator) {
  using S = Steps<T>;
  const T up = scaled(value, S::kScale), down = scaled(value, -S::kScale);
  const bool of_denominator = value == denominator, of_numerator = value == numerator;
  const bool zero = is_zero(numerator) | is_zero(denominator);
  const bool near_max = exponent_field(numerator) - exponent_field(denominator) >= S::kNearMax;
  const bool denormal = is_denormal(denominator);
  const T ratio = numerator / denominator;
  const bool reciprocal = is_denormal(T(1) / denominator), quotient = is_denormal(ratio) | is_zero(ratio);
  const bool tiny = exponent_field(numerator) <= S::kTiny;

  T r = select(tiny, up, value);
  r = select(quotient, select(of_numerator, up, value), r);
  r = select(reciprocal, down, r);
  r = select(reciprocal & quotient, select(of_denominator, down, value), r);
  r = select(denormal, up, r);
  r = select(near_max, select(of_denominator, up, value), r);
  const T nan = from_bits<T>(kInfinity<T> | kQuiet<T>);
  const bool back = near_max | (quotient & !denormal);
  return {select(zero, nan, r), static_cast<uint32_t>(back & !zero)};
}

// fma, scaled back, rounded once.
float scaled_fma(float a, float b, float c, bool back) {
  const double sum = add_to_odd(static_cast<double>(a) * static_cast<double>(b), static_cast<double>(c));
  const double factor = exponent_field(c) > 127 ? 0x1p64 : 0x1p-64;
  const float near = std::fma(a, b, c);
  return select(back & !is_infinite(near), static_cast<float>(sum * factor), near);
}
double scaled_fma(double a, double b, double c, bool back) {
  const double near = std::fma(a, b, c);
  const double factor = exponent_field(c) > 1023 ? 0x1p128 : 0x1p-128;
  const double result = near * factor;
  // Where that loses bits and `near`, which was rounded already, lies in the middle, what it lost decides.
  const double lost = std::fma(a, b, c - near);
  const double missing = near - result / factor;
  const bool denormal = magnitude(result) < kSmallestNormal<double>;
  const bool middle = denormal & (std::abs(missing) == 0x1p-947);  // half of the last place, times 2^128
  const double nudged = as_double((lost > 0) == !sign(near) ? as_bits(near) + 1 : as_bits(near) - 1);
  const double once = select(middle & (lost != 0), nudged * factor, result);
  return select(back, once, near);
}

template <class T>
T fix_up(T quotient, T denominator, T numerator) {
  const BitsIn<T> sign_out = static_cast<BitsIn<T>>(sign(denominator) ^ sign(numerator));
  const auto with_sign = [sign_out](BitsIn<T> size) { return from_bits<T>(static_cast<BitsIn<T>>(size | sign_out)); };
  const T invalid = from_bits<T>(kInfinity<T> | kQuiet<T> | kSign<T>);
  const T infinity = with_sign(kInfinity<T>), zero = with_sign(0);

  T r = select(is_nan(quotient), infinity, with_sign(magnitude(quotient)));
  if constexpr (!std::is_same_v<T, Half>) {
    r = select(exponent_field(numerator) - exponent_field(denominator) < Steps<T>::kUnderflow, zero, r);
  }
  r = select(is_infinite(denominator) | is_zero(numerator), zero, r);
  r = select(is_zero(denominator) | is_infinite(numerator), infinity, r);
  r = select(is_infinite(denominator) & is_infinite(numerator), invalid, r);
  r = select(is_zero(denominator) & is_zero(numerator), invalid, r);
  r = select(is_nan(denominator), quieted(denominator), r);
  return select(is_nan(numerator), quieted(numerator), r);
}

}  // namespace

Handlers vector_division() {
  static const Handler table[] = {
      lanes<[](float a, float b, float c) { return scale(a, b, c); }>("v_div_scale_f32"),
      lanes<[](double a, double b, double c) { return scale(a, b, c); }>("v_div_scale_f64"),
      lanes<[](float a, float b, float c, bool back) { return scaled_fma(a, b, c, back); }>("v_div_fmas_f32"),
      lanes<[](double a, double b, double c, bool back) { return scaled_fma(a, b, c, back); }>("v_div_fmas_f64"),
      lanes<[](float a, float b, float c) { return fix_up(a, b, c); }>("v_div_fixup_f32"),
      lanes<[](double a, double b, double c) { return fix_up(a, b, c); }>("v_div_fixup_f64"),
      lanes<[](Half a, Half b, Half c) { return fix_up(a, b, c); }>("v_div_fixup_f16"),
      lanes<[](Half a, Half b, Half c) { return fix_up(a, b, c); }>("v_div_fixup_legacy_f16"),
  };
  return table;
}

}  // namespace amdgpu
