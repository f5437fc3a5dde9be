// SPDX-License-Identifier: Apache-2.0
// Vector instructions on 16-bit floats and integers. What becomes of the other half of the register, the operand says.
#include "elementwise.h"
#include "floats.h"
#include "integers.h"
#include "tables.h"

namespace amdgpu {

namespace {

Half add(Half a, Half b) { return to_half(to_float(a) + to_float(b)); }
Half subtract(Half a, Half b) { return to_half(to_float(a) - to_float(b)); }
Half multiply(Half a, Half b) { return to_half(to_float(a) * to_float(b)); }

// MAC and MAD round twice, and make zeros of denormals whatever MODE says.
Half multiply_add_flushing(Half a, Half b, Half c) {
  return flushed(add(flushed(multiply(flushed(a), flushed(b))), flushed(c)));
}

// All without the promotion to int that would lose the type.
uint16_t as_u16(auto x) { return static_cast<uint16_t>(x); }
int16_t as_i16(auto x) { return static_cast<int16_t>(x); }

template <class T>
T median_integer(T a, T b, T c) {
  return std::max(std::min(a, b), std::min(std::max(a, b), c));
}

}  // namespace

Handlers vector_half() {
  static const Handler table[] = {
      lanes<[](Half a, Half b) { return add(a, b); }>("v_add_f16"),
      lanes<[](Half a, Half b) { return subtract(a, b); }>("v_sub_f16"),
      lanes<[](Half a, Half b) { return subtract(b, a); }>("v_subrev_f16"),
      lanes<[](Half a, Half b) { return multiply(a, b); }>("v_mul_f16"),
      lanes<[](Half a, Half b, Half c) { return fma(a, b, c); }>("v_fma_f16"),
      lanes<[](Half a, Half b, Half c) { return fma(a, b, c); }>("v_fma_legacy_f16"),
      lanes<[](Half a, Half b, Half c) { return fma(a, b, c); }>("v_fmac_f16"),
      lanes<[](Half a, Half b, Half k) { return fma(a, b, k); }>("v_fmaak_f16"),
      lanes<[](Half a, Half k, Half b) { return fma(a, k, b); }>("v_fmamk_f16"),
      lanes<[](Half a, Half b, Half c) { return multiply_add_flushing(a, b, c); }>("v_mad_f16"),
      lanes<[](Half a, Half b, Half c) { return multiply_add_flushing(a, b, c); }>("v_mad_legacy_f16"),
      lanes<[](Half a, Half b, Half c) { return multiply_add_flushing(a, b, c); }>("v_mac_f16"),
      lanes<[](Half a, Half b, Half k) { return multiply_add_flushing(a, b, k); }>("v_madak_f16"),
      lanes<[](Half a, Half k, Half b) { return multiply_add_flushing(a, k, b); }>("v_madmk_f16"),

      lanes<[](Half a, Half b) { return max_ieee(a, b); }>("v_max_f16"),
      lanes<[](Half a, Half b) { return min_ieee(a, b); }>("v_min_f16"),
      lanes<[](Half a, Half b, Half c) { return max_ieee(max_ieee(a, b), c); }>("v_max3_f16"),
      lanes<[](Half a, Half b, Half c) { return min_ieee(min_ieee(a, b), c); }>("v_min3_f16"),
      lanes<[](Half a, Half b, Half c) { return median_ieee(a, b, c); }>("v_med3_f16"),
      lanes<[](Half a, Half b, Half c) { return min_ieee(max_ieee(a, b), c); }>("v_maxmin_f16"),
      lanes<[](Half a, Half b, Half c) { return max_ieee(min_ieee(a, b), c); }>("v_minmax_f16"),
      lanes<[](Half a, Half b) { return max_number(a, b); }>("v_max_num_f16"),
      lanes<[](Half a, Half b) { return min_number(a, b); }>("v_min_num_f16"),
      lanes<[](Half a, Half b, Half c) { return max_number(max_number(a, b), c); }>("v_max3_num_f16"),
      lanes<[](Half a, Half b, Half c) { return min_number(min_number(a, b), c); }>("v_min3_num_f16"),
      lanes<[](Half a, Half b, Half c) { return median_number(a, b, c); }>("v_med3_num_f16"),
      lanes<[](Half a, Half b, Half c) { return min_number(max_number(a, b), c); }>("v_maxmin_num_f16"),
      lanes<[](Half a, Half b, Half c) { return max_number(min_number(a, b), c); }>("v_minmax_num_f16"),
      lanes<[](Half a, Half b) { return maximum(a, b); }>("v_maximum_f16"),
      lanes<[](Half a, Half b) { return minimum(a, b); }>("v_minimum_f16"),
      lanes<[](Half a, Half b, Half c) { return maximum(maximum(a, b), c); }>("v_maximum3_f16"),
      lanes<[](Half a, Half b, Half c) { return minimum(minimum(a, b), c); }>("v_minimum3_f16"),
      lanes<[](Half a, Half b, Half c) { return minimum(maximum(a, b), c); }>("v_maximumminimum_f16"),
      lanes<[](Half a, Half b, Half c) { return maximum(minimum(a, b), c); }>("v_minimummaximum_f16"),

      lanes<[](Half a) { return floored(a); }>("v_floor_f16"),
      lanes<[](Half a) { return ceiled(a); }>("v_ceil_f16"),
      lanes<[](Half a) { return truncated(a); }>("v_trunc_f16"),
      lanes<[](Half a) { return rounded_to_even(a); }>("v_rndne_f16"),
      lanes<[](Half a) { return fraction(a); }>("v_fract_f16"),
      lanes<[](Half a, int16_t n) { return scaled(a, n); }>("v_ldexp_f16"),
      lanes<[](Half a) { return mantissa(a); }>("v_frexp_mant_f16"),
      lanes<[](Half a) { return as_i16(exponent(a)); }>("v_frexp_exp_i16_f16"),

      lanes<[](uint16_t a) { return to_half(static_cast<float>(a)); }>("v_cvt_f16_u16"),
      lanes<[](int16_t a) { return to_half(static_cast<float>(a)); }>("v_cvt_f16_i16"),
      lanes<[](Half a) { return to_uint16(to_float(a)); }>("v_cvt_u16_f16"),
      lanes<[](Half a) { return to_int16(to_float(a)); }>("v_cvt_i16_f16"),
      lanes<[](Half a) { return to_snorm16(to_float(a)); }>("v_cvt_norm_i16_f16"),
      lanes<[](Half a) { return to_unorm16(to_float(a)); }>("v_cvt_norm_u16_f16"),
      lanes<[](Half a, Half b) { return pair(as_u16(to_snorm16(to_float(a))), as_u16(to_snorm16(to_float(b)))); }>(
          "v_cvt_pknorm_i16_f16"),
      lanes<[](Half a, Half b) { return pair(to_unorm16(to_float(a)), to_unorm16(to_float(b))); }>(
          "v_cvt_pknorm_u16_f16"),
      lanes<[](Half a, Half b) { return pair(a, b); }>("v_pack_b32_f16"),

      lanes<[](uint16_t a, uint16_t b) { return as_u16(a + b); }>("v_add_u16"),
      lanes<[](uint16_t a, uint16_t b) { return as_u16(a - b); }>("v_sub_u16"),
      lanes<[](uint16_t a, uint16_t b) { return as_u16(b - a); }>("v_subrev_u16"),
      lanes<[](int16_t a, int16_t b) { return as_i16(a + b); }>("v_add_i16"),
      lanes<[](int16_t a, int16_t b) { return as_i16(a - b); }>("v_sub_i16"),
      lanes<[](uint16_t a, uint16_t b) { return saturated<uint16_t>(a + b); }>("v_add_u16_clamp"),
      lanes<[](uint16_t a, uint16_t b) { return saturated<uint16_t>(a - b); }>("v_sub_u16_clamp"),
      lanes<[](uint16_t a, uint16_t b) { return saturated<uint16_t>(b - a); }>("v_subrev_u16_clamp"),
      lanes<[](int16_t a, int16_t b) { return saturated<int16_t>(a + b); }>("v_add_i16_clamp"),
      lanes<[](int16_t a, int16_t b) { return saturated<int16_t>(a - b); }>("v_sub_i16_clamp"),
      lanes<[](uint16_t a, uint16_t b) { return as_u16(uint32_t{a} * b); }>("v_mul_lo_u16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c) { return as_u16(uint32_t{a} * b + c); }>("v_mad_u16"),
      lanes<[](int16_t a, int16_t b, int16_t c) { return as_i16(a * b + c); }>("v_mad_i16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c) { return as_u16(uint32_t{a} * b + c); }>("v_mad_legacy_u16"),
      lanes<[](int16_t a, int16_t b, int16_t c) { return as_i16(a * b + c); }>("v_mad_legacy_i16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c) { return saturated<uint16_t>(int64_t{a} * b + c); }>(
          "v_mad_u16_clamp"),
      lanes<[](int16_t a, int16_t b, int16_t c) { return saturated<int16_t>(a * b + c); }>("v_mad_i16_clamp"),
      lanes<[](uint16_t n, uint16_t a) { return as_u16(a << (n & 15)); }>("v_lshlrev_b16"),
      lanes<[](uint16_t n, uint16_t a) { return as_u16(a >> (n & 15)); }>("v_lshrrev_b16"),
      lanes<[](uint16_t n, int16_t a) { return as_i16(a >> (n & 15)); }>("v_ashrrev_i16"),
      lanes<[](uint16_t a, uint16_t b) { return std::max(a, b); }>("v_max_u16"),
      lanes<[](uint16_t a, uint16_t b) { return std::min(a, b); }>("v_min_u16"),
      lanes<[](int16_t a, int16_t b) { return std::max(a, b); }>("v_max_i16"),
      lanes<[](int16_t a, int16_t b) { return std::min(a, b); }>("v_min_i16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c) { return std::max(std::max(a, b), c); }>("v_max3_u16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c) { return std::min(std::min(a, b), c); }>("v_min3_u16"),
      lanes<[](int16_t a, int16_t b, int16_t c) { return std::max(std::max(a, b), c); }>("v_max3_i16"),
      lanes<[](int16_t a, int16_t b, int16_t c) { return std::min(std::min(a, b), c); }>("v_min3_i16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c) { return median_integer(a, b, c); }>("v_med3_u16"),
      lanes<[](int16_t a, int16_t b, int16_t c) { return median_integer(a, b, c); }>("v_med3_i16"),
      lanes<[](uint16_t a, uint16_t b) { return as_u16(a & b); }>("v_and_b16"),
      lanes<[](uint16_t a, uint16_t b) { return as_u16(a | b); }>("v_or_b16"),
      lanes<[](uint16_t a, uint16_t b) { return as_u16(a ^ b); }>("v_xor_b16"),
      lanes<[](uint16_t a) { return as_u16(~a); }>("v_not_b16"),
      lanes<[](uint16_t a) { return a; }>("v_mov_b16"),
      lanes<[](uint16_t a, uint16_t b, bool second) { return second ? b : a; }>("v_cndmask_b16"),
      lanes<[](uint16_t a, uint16_t b, uint16_t c, uint32_t table) { return as_u16(by_truth_table(a, b, c, table)); }>(
          "v_bitop3_b16"),
      lanes<[](uint32_t a) {
        const auto byte = [](uint16_t x) { return as_u16(std::clamp(int32_t{static_cast<int16_t>(x)}, 0, 255)); };
        return as_u16(byte(as_u16(a)) | byte(as_u16(a >> 16)) << 8);
      }>("v_sat_pk_u8_i16"),
  };
  return table;
}

}  // namespace amdgpu
