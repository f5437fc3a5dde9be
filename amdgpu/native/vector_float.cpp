// SPDX-License-Identifier: Apache-2.0
// Vector instructions on 32-bit floats, and conversions from and to them.
#include "elementwise.h"
#include "floats.h"
#include "small_float.h"
#include "tables.h"

namespace amdgpu {

namespace {

// MAC and MAD of targets before gfx940: two roundings, and denormals become zeros whatever MODE says.
float multiply_add_flushing(float a, float b, float c) {
  return flushed(flushed(flushed(a) * flushed(b)) + flushed(c));
}

// Of the legacy instructions, zero times anything is zero.
float multiply_legacy(float a, float b) { return select(is_zero(a) | is_zero(b), 0.0f, a * b); }
float fma_legacy(float a, float b, float c) { return select(is_zero(a) | is_zero(b), 0.0f + c, std::fma(a, b, c)); }

template <int Byte>
float byte_of(uint32_t x) {
  return static_cast<float>(static_cast<int32_t>(x >> (8 * Byte) & 0xffu));
}

// The nearest byte, in the byte of `rest` that `at` names.
uint32_t insert_byte(float x, uint32_t at, uint32_t rest) {
  const float in = is_nan(x) ? 0.0f : std::max(std::min(x, 255.0f), 0.0f);
  const uint32_t up = 8 * (at & 3), byte = static_cast<uint32_t>(static_cast<int32_t>(std::rint(in)));
  return (rest & ~(0xffu << up)) | byte << up;
}

}  // namespace

Handlers vector_float() {
  static const Handler table[] = {
      lanes<[](float a, float b) { return a + b; }>("v_add_f32"),
      lanes<[](float a, float b) { return a - b; }>("v_sub_f32"),
      lanes<[](float a, float b) { return b - a; }>("v_subrev_f32"),
      lanes<[](float a, float b) { return a * b; }>("v_mul_f32"),
      lanes<[](float a, float b) { return multiply_legacy(a, b); }>("v_mul_legacy_f32"),
      lanes<[](float a, float b, float c) { return std::fma(a, b, c); }>("v_fma_f32"),
      lanes<[](float a, float b, float c) { return std::fma(a, b, c); }>("v_fmac_f32"),
      lanes<[](float a, float b, float k) { return std::fma(a, b, k); }>("v_fmaak_f32"),
      lanes<[](float a, float k, float b) { return std::fma(a, k, b); }>("v_fmamk_f32"),
      lanes<[](float a, float b, float c) { return fma_legacy(a, b, c); }>("v_fma_legacy_f32"),
      lanes<[](float a, float b, float c) { return fma_legacy(a, b, c); }>("v_fmac_legacy_f32"),
      lanes<[](float a, float b, float c) { return multiply_add_flushing(a, b, c); }>("v_mad_f32"),
      lanes<[](float a, float b, float c) { return multiply_add_flushing(a, b, c); }>("v_mac_f32"),
      lanes<[](float a, float b, float k) { return multiply_add_flushing(a, b, k); }>("v_madak_f32"),
      lanes<[](float a, float k, float b) { return multiply_add_flushing(a, k, b); }>("v_madmk_f32"),
      lanes<[](float a, float b, float c) {
        return flushed(flushed(multiply_legacy(flushed(a), flushed(b))) + flushed(c));
      }>("v_mad_legacy_f32"),

      lanes<[](float a, float b) { return max_ieee(a, b); }>("v_max_f32"),
      lanes<[](float a, float b) { return min_ieee(a, b); }>("v_min_f32"),
      lanes<[](float a, float b, float c) { return max_ieee(max_ieee(a, b), c); }>("v_max3_f32"),
      lanes<[](float a, float b, float c) { return min_ieee(min_ieee(a, b), c); }>("v_min3_f32"),
      lanes<[](float a, float b, float c) { return median_ieee(a, b, c); }>("v_med3_f32"),
      lanes<[](float a, float b, float c) { return min_ieee(max_ieee(a, b), c); }>("v_maxmin_f32"),
      lanes<[](float a, float b, float c) { return max_ieee(min_ieee(a, b), c); }>("v_minmax_f32"),
      lanes<[](float a, float b) { return max_number(a, b); }>("v_max_num_f32"),
      lanes<[](float a, float b) { return min_number(a, b); }>("v_min_num_f32"),
      lanes<[](float a, float b, float c) { return max_number(max_number(a, b), c); }>("v_max3_num_f32"),
      lanes<[](float a, float b, float c) { return min_number(min_number(a, b), c); }>("v_min3_num_f32"),
      lanes<[](float a, float b, float c) { return median_number(a, b, c); }>("v_med3_num_f32"),
      lanes<[](float a, float b, float c) { return min_number(max_number(a, b), c); }>("v_maxmin_num_f32"),
      lanes<[](float a, float b, float c) { return max_number(min_number(a, b), c); }>("v_minmax_num_f32"),
      lanes<[](float a, float b) { return maximum(a, b); }>("v_maximum_f32"),
      lanes<[](float a, float b) { return minimum(a, b); }>("v_minimum_f32"),
      lanes<[](float a, float b, float c) { return maximum(maximum(a, b), c); }>("v_maximum3_f32"),
      lanes<[](float a, float b, float c) { return minimum(minimum(a, b), c); }>("v_minimum3_f32"),
      lanes<[](float a, float b, float c) { return minimum(maximum(a, b), c); }>("v_maximumminimum_f32"),
      lanes<[](float a, float b, float c) { return maximum(minimum(a, b), c); }>("v_minimummaximum_f32"),

      lanes<[](float a) { return floored(a); }>("v_floor_f32"),
      lanes<[](float a) { return ceiled(a); }>("v_ceil_f32"),
      lanes<[](float a) { return truncated(a); }>("v_trunc_f32"),
      lanes<[](float a) { return rounded_to_even(a); }>("v_rndne_f32"),
      lanes<[](float a) { return fraction(a); }>("v_fract_f32"),
      lanes<[](float a, int32_t n) { return scaled(a, n); }>("v_ldexp_f32"),
      lanes<[](float a) { return mantissa(a); }>("v_frexp_mant_f32"),
      lanes<[](float a) { return int32_t{exponent(a)}; }>("v_frexp_exp_i32_f32"),

      lanes<[](Half a) { return to_float(is_nan(a) ? quieted(a) : a); }>("v_cvt_f32_f16"),
      lanes<[](float a) { return to_half(a); }>("v_cvt_f16_f32"),
      lanes<[](float a, float b) { return pair(to_half(a), to_half(b)); }>("v_cvt_pk_f16_f32"),
      lanes<[](float a, float b) { return pair(to_half_towards_zero(a), to_half_towards_zero(b)); }>(
          "v_cvt_pkrtz_f16_f32"),
      lanes<[](uint16_t a) { return bf16_to_float(a); }>("v_cvt_f32_bf16"),
      lanes<[](float a, float b) {
        return pair(static_cast<uint16_t>(float_to_bf16(a)), static_cast<uint16_t>(float_to_bf16(b)));
      }>("v_cvt_pk_bf16_f32"),
      lanes<[](int32_t a) { return static_cast<float>(a); }>("v_cvt_f32_i32"),
      lanes<[](uint32_t a) { return static_cast<float>(a); }>("v_cvt_f32_u32"),
      lanes<[](float a) { return to_int32(a); }>("v_cvt_i32_f32"),
      lanes<[](float a) { return to_uint32(a); }>("v_cvt_u32_f32"),
      lanes<[](float a) { return to_int32(std::floor(a)); }>("v_cvt_flr_i32_f32"),
      lanes<[](float a) { return to_int32(std::floor(a + 0.5f)); }>("v_cvt_rpi_i32_f32"),
      lanes<[](uint32_t a) { return byte_of<0>(a); }>("v_cvt_f32_ubyte0"),
      lanes<[](uint32_t a) { return byte_of<1>(a); }>("v_cvt_f32_ubyte1"),
      lanes<[](uint32_t a) { return byte_of<2>(a); }>("v_cvt_f32_ubyte2"),
      lanes<[](uint32_t a) { return byte_of<3>(a); }>("v_cvt_f32_ubyte3"),
      lanes<[](uint32_t a) {  // a signed number of four bits, in sixteenths
        return static_cast<float>(static_cast<int32_t>(a << 28) >> 28) * 0.0625f;
      }>("v_cvt_off_f32_i4"),
      lanes<[](float a, float b) {
        return pair(static_cast<uint16_t>(to_snorm16(a)), static_cast<uint16_t>(to_snorm16(b)));
      }>("v_cvt_pknorm_i16_f32"),
      lanes<[](float a, float b) { return pair(to_unorm16(a), to_unorm16(b)); }>("v_cvt_pknorm_u16_f32"),
      lanes<[](float a, float b) {
        return pair(static_cast<uint16_t>(to_int16(a)), static_cast<uint16_t>(to_int16(b)));
      }>("v_cvt_pk_i16_f32"),
      lanes<[](float a, float b) { return pair(to_uint16(a), to_uint16(b)); }>("v_cvt_pk_u16_f32"),
      lanes<[](float a, uint32_t at, uint32_t rest) { return insert_byte(a, at, rest); }>("v_cvt_pk_u8_f32"),

      lanes<[](uint32_t a) { return from_small<Fp8>(a); }>("v_cvt_f32_fp8"),
      lanes<[](uint32_t a) { return from_small<Bf8>(a); }>("v_cvt_f32_bf8"),
      lanes<[](uint32_t a) { return from_small<Fp8Fnuz>(a); }>("v_cvt_f32_fp8_fnuz"),
      lanes<[](uint32_t a) { return from_small<Bf8Fnuz>(a); }>("v_cvt_f32_bf8_fnuz"),
      lanes<[](uint16_t a) { return pair_from_small<Fp8>(a); }>("v_cvt_pk_f32_fp8"),
      lanes<[](uint16_t a) { return pair_from_small<Bf8>(a); }>("v_cvt_pk_f32_bf8"),
      lanes<[](uint16_t a) { return pair_from_small<Fp8Fnuz>(a); }>("v_cvt_pk_f32_fp8_fnuz"),
      lanes<[](uint16_t a) { return pair_from_small<Bf8Fnuz>(a); }>("v_cvt_pk_f32_bf8_fnuz"),
      lanes<[](float a, float b) { return pair_to_small<Fp8>(a, b); }>("v_cvt_pk_fp8_f32"),
      lanes<[](float a, float b) { return pair_to_small<Bf8>(a, b); }>("v_cvt_pk_bf8_f32"),
      lanes<[](float a, float b) { return pair_to_small<Fp8Fnuz>(a, b); }>("v_cvt_pk_fp8_f32_fnuz"),
      lanes<[](float a, float b) { return pair_to_small<Bf8Fnuz>(a, b); }>("v_cvt_pk_bf8_f32_fnuz"),
  };
  return table;
}

}  // namespace amdgpu
