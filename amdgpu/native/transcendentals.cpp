// SPDX-License-Identifier: Apache-2.0
#include "transcendentals.h"

#include "elementwise.h"
#include "scalar.h"
#include "tables.h"

namespace amdgpu {

namespace {

// Whether denormal inputs and results are zeros: AMD's documents say so of all of float.
template <class T>
constexpr bool kFlushes = std::is_same_v<T, float>;

template <class T>
T input(T x) {
  return kFlushes<T> ? flushed(x) : x;
}
template <class T>
T output(T x) {
  return kFlushes<T> ? flushed(x) : x;
}

template <class T, Rounding R>
constexpr auto kExp = [](T x) { return output(exp2_of<R, T>(input(x))); };
template <class T, Rounding R>
constexpr auto kLog = [](T x) { return output(log2_of<R, T>(input(x))); };
template <class T, Rounding R>
constexpr auto kRcp = [](T x) { return output(reciprocal<R, T>(input(x))); };
template <class T, Rounding R>
constexpr auto kSqrt = [](T x) { return output(square_root<R, T>(input(x))); };
template <class T, Rounding R>
constexpr auto kRsq = [](T x) { return output(reciprocal_square_root<R, T>(input(x))); };
template <class T, Rounding R>
constexpr auto kSin = [](T x) { return sine<R, T>(x); };
template <class T, Rounding R>
constexpr auto kCos = [](T x) { return cosine<R, T>(x); };

template <Rounding R>
constexpr auto kRcpDouble = [](double x) {
  const double r = 1.0 / x;
  return roughly<R>(r, std::fma(r, x, -1.0) == 0);
};
template <Rounding R>
constexpr auto kSqrtDouble = [](double x) {
  const double r = std::sqrt(x);
  return roughly<R>(r, std::fma(r, r, -x) == 0);
};
template <Rounding R>
constexpr auto kRsqDouble = [](double x) {
  const double root = std::sqrt(x), r = 1.0 / root;
  return roughly<R>(r, std::fma(root, root, -x) == 0 && std::fma(r, root, -1.0) == 0);
};

constexpr auto kNearest = Rounding::kNearest, kBelow = Rounding::kBelow, kAbove = Rounding::kAbove;

// F with the rounding that is set.
template <auto Nearest, auto Below, auto Above>
Handler rounded(const char* name) {
  return lanes_by<transcendental_rounding, Nearest, Below, Above>(name);
}
template <auto Nearest, auto Below, auto Above>
Handler rounded_scalar(const char* name) {
  return scalars_by<transcendental_rounding, Nearest, Below, Above>(name);
}

}  // namespace

Handlers transcendentals() {
  using H = Half;
  static const Handler table[] = {
      rounded<kExp<float, kNearest>, kExp<float, kBelow>, kExp<float, kAbove>>("v_exp_f32"),
      rounded<kLog<float, kNearest>, kLog<float, kBelow>, kLog<float, kAbove>>("v_log_f32"),
      rounded<kRcp<float, kNearest>, kRcp<float, kBelow>, kRcp<float, kAbove>>("v_rcp_f32"),
      rounded<kRcp<float, kNearest>, kRcp<float, kBelow>, kRcp<float, kAbove>>("v_rcp_iflag_f32"),
      rounded<kSqrt<float, kNearest>, kSqrt<float, kBelow>, kSqrt<float, kAbove>>("v_sqrt_f32"),
      rounded<kRsq<float, kNearest>, kRsq<float, kBelow>, kRsq<float, kAbove>>("v_rsq_f32"),
      rounded<kSin<float, kNearest>, kSin<float, kBelow>, kSin<float, kAbove>>("v_sin_f32"),
      rounded<kCos<float, kNearest>, kCos<float, kBelow>, kCos<float, kAbove>>("v_cos_f32"),
      rounded<kExp<H, kNearest>, kExp<H, kBelow>, kExp<H, kAbove>>("v_exp_f16"),
      rounded<kLog<H, kNearest>, kLog<H, kBelow>, kLog<H, kAbove>>("v_log_f16"),
      rounded<kRcp<H, kNearest>, kRcp<H, kBelow>, kRcp<H, kAbove>>("v_rcp_f16"),
      rounded<kSqrt<H, kNearest>, kSqrt<H, kBelow>, kSqrt<H, kAbove>>("v_sqrt_f16"),
      rounded<kRsq<H, kNearest>, kRsq<H, kBelow>, kRsq<H, kAbove>>("v_rsq_f16"),
      rounded<kSin<H, kNearest>, kSin<H, kBelow>, kSin<H, kAbove>>("v_sin_f16"),
      rounded<kCos<H, kNearest>, kCos<H, kBelow>, kCos<H, kAbove>>("v_cos_f16"),
      rounded<kRcpDouble<kNearest>, kRcpDouble<kBelow>, kRcpDouble<kAbove>>("v_rcp_f64"),
      rounded<kSqrtDouble<kNearest>, kSqrtDouble<kBelow>, kSqrtDouble<kAbove>>("v_sqrt_f64"),
      rounded<kRsqDouble<kNearest>, kRsqDouble<kBelow>, kRsqDouble<kAbove>>("v_rsq_f64"),

      rounded_scalar<kExp<float, kNearest>, kExp<float, kBelow>, kExp<float, kAbove>>("v_s_exp_f32"),
      rounded_scalar<kLog<float, kNearest>, kLog<float, kBelow>, kLog<float, kAbove>>("v_s_log_f32"),
      rounded_scalar<kRcp<float, kNearest>, kRcp<float, kBelow>, kRcp<float, kAbove>>("v_s_rcp_f32"),
      rounded_scalar<kSqrt<float, kNearest>, kSqrt<float, kBelow>, kSqrt<float, kAbove>>("v_s_sqrt_f32"),
      rounded_scalar<kRsq<float, kNearest>, kRsq<float, kBelow>, kRsq<float, kAbove>>("v_s_rsq_f32"),
      rounded_scalar<kExp<H, kNearest>, kExp<H, kBelow>, kExp<H, kAbove>>("v_s_exp_f16"),
      rounded_scalar<kLog<H, kNearest>, kLog<H, kBelow>, kLog<H, kAbove>>("v_s_log_f16"),
      rounded_scalar<kRcp<H, kNearest>, kRcp<H, kBelow>, kRcp<H, kAbove>>("v_s_rcp_f16"),
      rounded_scalar<kSqrt<H, kNearest>, kSqrt<H, kBelow>, kSqrt<H, kAbove>>("v_s_sqrt_f16"),
      rounded_scalar<kRsq<H, kNearest>, kRsq<H, kBelow>, kRsq<H, kAbove>>("v_s_rsq_f16"),
  };
  return table;
}

}  // namespace amdgpu
