// SPDX-License-Identifier: Apache-2.0
// Vector instructions on 64-bit integers and floats.
#include "elementwise.h"
#include "floats.h"
#include "tables.h"

namespace amdgpu {

namespace {

WithMask<uint64_t> multiply_add(uint32_t a, uint32_t b, uint64_t c) {
  const uint64_t sum = uint64_t{a} * b + c;
  return {sum, sum < c};
}
// The second result is bit 64 of the sum.
WithMask<int64_t> multiply_add(int32_t a, int32_t b, int64_t c) {
  const int64_t product = int64_t{a} * b;
  const auto sum = static_cast<int64_t>(static_cast<uint64_t>(product) + static_cast<uint64_t>(c));
  const bool overflow = ((product ^ sum) & (c ^ sum)) < 0;
  return {sum, (sum < 0) != overflow};
}

}  // namespace

Handlers vector_wide() {
  static const Handler table[] = {
      lanes<[](uint64_t a) { return a; }>("v_mov_b64"),
      lanes<[](uint32_t n, uint64_t a) { return a << (n & 63); }>("v_lshlrev_b64"),
      lanes<[](uint32_t n, uint64_t a) { return (a >> (n & 63)); }>("v_lshrrev_b64"),
      lanes<[](uint32_t n, int64_t a) { return (a >> (n & 63)); }>("v_ashrrev_i64"),
      lanes<[](uint64_t a, uint32_t n, uint64_t b) { return (a << ((n & 7) > 4 ? 0 : n & 7)) + b; }>("v_lshl_add_u64"),
      lanes<[](uint32_t a, uint32_t b, uint64_t c) { return multiply_add(a, b, c); }>("v_mad_u64_u32"),
      lanes<[](int32_t a, int32_t b, int64_t c) { return multiply_add(a, b, c); }>("v_mad_i64_i32"),

      lanes<[](double a, double b) { return a + b; }>("v_add_f64"),
      lanes<[](double a, double b) { return a * b; }>("v_mul_f64"),
      lanes<[](double a, double b, double c) { return std::fma(a, b, c); }>("v_fma_f64"),
      lanes<[](double a, double b, double c) { return std::fma(a, b, c); }>("v_fmac_f64"),
      lanes<[](double a, double b) { return max_ieee(a, b); }>("v_max_f64"),
      lanes<[](double a, double b) { return min_ieee(a, b); }>("v_min_f64"),
      lanes<[](double a, double b) { return max_number(a, b); }>("v_max_num_f64"),
      lanes<[](double a, double b) { return min_number(a, b); }>("v_min_num_f64"),
      lanes<[](double a, double b) { return maximum(a, b); }>("v_maximum_f64"),
      lanes<[](double a, double b) { return minimum(a, b); }>("v_minimum_f64"),
      lanes<[](double a) { return floored(a); }>("v_floor_f64"),
      lanes<[](double a) { return ceiled(a); }>("v_ceil_f64"),
      lanes<[](double a) { return truncated(a); }>("v_trunc_f64"),
      lanes<[](double a) { return rounded_to_even(a); }>("v_rndne_f64"),
      lanes<[](double a) { return fraction(a); }>("v_fract_f64"),
      lanes<[](double a, int32_t n) { return scaled(a, n); }>("v_ldexp_f64"),
      lanes<[](double a) { return mantissa(a); }>("v_frexp_mant_f64"),
      lanes<[](double a) { return int32_t{exponent(a)}; }>("v_frexp_exp_i32_f64"),
      lanes<[](double a) { return static_cast<float>(a); }>("v_cvt_f32_f64"),
      lanes<[](float a) { return static_cast<double>(a); }>("v_cvt_f64_f32"),
      lanes<[](int32_t a) { return static_cast<double>(a); }>("v_cvt_f64_i32"),
      lanes<[](uint32_t a) { return static_cast<double>(a); }>("v_cvt_f64_u32"),
      lanes<[](double a) { return to_int32(a); }>("v_cvt_i32_f64"),
      lanes<[](double a) { return to_uint32(a); }>("v_cvt_u32_f64"),
  };
  return table;
}

}  // namespace amdgpu
