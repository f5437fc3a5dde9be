// SPDX-License-Identifier: Apache-2.0
// Vector instructions on two values of a register, and mixed precision.
#include "elementwise.h"
#include "floats.h"
#include "integers.h"
#include "tables.h"

namespace amdgpu {

namespace {

uint16_t as_u16(auto x) { return static_cast<uint16_t>(x); }
int16_t as_i16(uint16_t x) { return static_cast<int16_t>(x); }

// F of both halves.
template <auto F>
Pair each(Pair a, Pair b) {
  return pair(as_u16(F(a.low(), b.low())), as_u16(F(a.high(), b.high())));
}
template <auto F>
Pair each(Pair a, Pair b, Pair c) {
  return pair(as_u16(F(a.low(), b.low(), c.low())), as_u16(F(a.high(), b.high(), c.high())));
}
template <auto F>
Pair each_signed(Pair a, Pair b) {
  return pair(as_u16(F(as_i16(a.low()), as_i16(b.low()))), as_u16(F(as_i16(a.high()), as_i16(b.high()))));
}
template <auto F>
HalfPair each(HalfPair a, HalfPair b) {
  return pair(F(a.low(), b.low()), F(a.high(), b.high()));
}
template <auto F>
HalfPair each(HalfPair a, HalfPair b, HalfPair c) {
  return pair(F(a.low(), b.low(), c.low()), F(a.high(), b.high(), c.high()));
}

Half add(Half a, Half b) { return to_half(to_float(a) + to_float(b)); }
Half multiply(Half a, Half b) { return to_half(to_float(a) * to_float(b)); }
Half fused(Half a, Half b, Half c) { return fma(a, b, c); }
Half maximum3(Half a, Half b, Half c) { return maximum(maximum(a, b), c); }
Half minimum3(Half a, Half b, Half c) { return minimum(minimum(a, b), c); }

int32_t plus(int32_t a, int32_t b) { return a + b; }
int32_t minus(int32_t a, int32_t b) { return a - b; }
template <class T>
T saturated_plus(int32_t a, int32_t b) {
  return saturated<T>(a + b);
}
template <class T>
T saturated_minus(int32_t a, int32_t b) {
  return saturated<T>(a - b);
}
template <class T>
T larger_integer(T a, T b) {
  return std::max(a, b);
}
template <class T>
T smaller_integer(T a, T b) {
  return std::min(a, b);
}
uint32_t product(uint16_t a, uint16_t b) { return uint32_t{a} * b; }
uint32_t multiply_add(uint16_t a, uint16_t b, uint16_t c) { return uint32_t{a} * b + c; }
uint16_t saturated_multiply_add(uint16_t a, uint16_t b, uint16_t c) { return saturated<uint16_t>(int64_t{a} * b + c); }
int16_t saturated_multiply_add_signed(uint16_t a, uint16_t b, uint16_t c) {
  return saturated<int16_t>(as_i16(a) * as_i16(b) + as_i16(c));
}
uint32_t shift_left(uint16_t n, uint16_t a) { return uint32_t{a} << (n & 15); }
uint32_t shift_right(uint16_t n, uint16_t a) { return uint32_t{a} >> (n & 15); }
int32_t shift_right_signed(int16_t n, int16_t a) { return a >> (n & 15); }

// op_sel alone says which registers: of the first source for the low result, of the second for the high one.
template <int L>
void move_pair(Wave<L>& w, const Instruction& i) {
  detail::Room<float, L> result[2], room;
  for (int half = 0; half < 2; ++half) {
    const float* from = detail::read_float_of_pair<L>(w, i.operand[1 + half], false, room.lane);
    for (int l = 0; l < L; ++l) result[half].lane[l] = from[l];
  }
  detail::write_float_pair<L>(w, i, result[0].lane, result[1].lane);
}

}  // namespace

Handlers vector_packed() {
  static const Handler table[] = {
      float_pairs<[](float a, float b) { return a + b; }>("v_pk_add_f32"),
      float_pairs<[](float a, float b) { return a * b; }>("v_pk_mul_f32"),
      float_pairs<[](float a, float b, float c) { return std::fma(a, b, c); }>("v_pk_fma_f32"),
      {"v_pk_mov_b32", &move_pair<32>, &move_pair<64>, "F:FF", Flow::kLanes},

      lanes<[](HalfPair a, HalfPair b) { return each<add>(a, b); }>("v_pk_add_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<multiply>(a, b); }>("v_pk_mul_f16"),
      lanes<[](HalfPair a, HalfPair b, HalfPair c) { return each<fused>(a, b, c); }>("v_pk_fma_f16"),
      lanes<[](HalfPair a, HalfPair b, HalfPair c) { return each<fused>(a, b, c); }>("v_pk_fmac_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<max_ieee<Half>>(a, b); }>("v_pk_max_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<min_ieee<Half>>(a, b); }>("v_pk_min_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<max_number<Half>>(a, b); }>("v_pk_max_num_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<min_number<Half>>(a, b); }>("v_pk_min_num_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<maximum<Half>>(a, b); }>("v_pk_maximum_f16"),
      lanes<[](HalfPair a, HalfPair b) { return each<minimum<Half>>(a, b); }>("v_pk_minimum_f16"),
      lanes<[](HalfPair a, HalfPair b, HalfPair c) { return each<maximum3>(a, b, c); }>("v_pk_maximum3_f16"),
      lanes<[](HalfPair a, HalfPair b, HalfPair c) { return each<minimum3>(a, b, c); }>("v_pk_minimum3_f16"),

      lanes<[](Pair a, Pair b) { return each<plus>(a, b); }>("v_pk_add_u16"),
      lanes<[](Pair a, Pair b) { return each<plus>(a, b); }>("v_pk_add_i16"),
      lanes<[](Pair a, Pair b) { return each<minus>(a, b); }>("v_pk_sub_u16"),
      lanes<[](Pair a, Pair b) { return each<minus>(a, b); }>("v_pk_sub_i16"),
      lanes<[](Pair a, Pair b) { return each<saturated_plus<uint16_t>>(a, b); }>("v_pk_add_u16_clamp"),
      lanes<[](Pair a, Pair b) { return each_signed<saturated_plus<int16_t>>(a, b); }>("v_pk_add_i16_clamp"),
      lanes<[](Pair a, Pair b) { return each<saturated_minus<uint16_t>>(a, b); }>("v_pk_sub_u16_clamp"),
      lanes<[](Pair a, Pair b) { return each_signed<saturated_minus<int16_t>>(a, b); }>("v_pk_sub_i16_clamp"),
      lanes<[](Pair a, Pair b) { return each<product>(a, b); }>("v_pk_mul_lo_u16"),
      lanes<[](Pair a, Pair b, Pair c) { return each<multiply_add>(a, b, c); }>("v_pk_mad_u16"),
      lanes<[](Pair a, Pair b, Pair c) { return each<multiply_add>(a, b, c); }>("v_pk_mad_i16"),
      lanes<[](Pair a, Pair b, Pair c) { return each<saturated_multiply_add>(a, b, c); }>("v_pk_mad_u16_clamp"),
      lanes<[](Pair a, Pair b, Pair c) { return each<saturated_multiply_add_signed>(a, b, c); }>("v_pk_mad_i16_clamp"),
      lanes<[](Pair a, Pair b) { return each<larger_integer<uint16_t>>(a, b); }>("v_pk_max_u16"),
      lanes<[](Pair a, Pair b) { return each<smaller_integer<uint16_t>>(a, b); }>("v_pk_min_u16"),
      lanes<[](Pair a, Pair b) { return each_signed<larger_integer<int16_t>>(a, b); }>("v_pk_max_i16"),
      lanes<[](Pair a, Pair b) { return each_signed<smaller_integer<int16_t>>(a, b); }>("v_pk_min_i16"),
      lanes<[](Pair n, Pair a) { return each<shift_left>(n, a); }>("v_pk_lshlrev_b16"),
      lanes<[](Pair n, Pair a) { return each<shift_right>(n, a); }>("v_pk_lshrrev_b16"),
      lanes<[](Pair n, Pair a) { return each_signed<shift_right_signed>(n, a); }>("v_pk_ashrrev_i16"),

      // The result of mixed precision is rounded to a float first, then to a half.
      lanes<[](Mixed a, Mixed b, Mixed c) { return std::fma(a.value, b.value, c.value); }>("v_fma_mix_f32"),
      lanes<[](Mixed a, Mixed b, Mixed c) { return to_half(std::fma(a.value, b.value, c.value)); }>("v_fma_mixlo_f16"),
      lanes<[](Mixed a, Mixed b, Mixed c) { return to_half(std::fma(a.value, b.value, c.value)); }>("v_fma_mixhi_f16"),
  };
  return table;
}

}  // namespace amdgpu
