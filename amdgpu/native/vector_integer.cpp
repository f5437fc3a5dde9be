// SPDX-License-Identifier: Apache-2.0
// Vector instructions on 32-bit integers, and masks of carries.
#include <bit>

#include "elementwise.h"
#include "integers.h"
#include "tables.h"

namespace amdgpu {

namespace {

int32_t signed24(int32_t x) { return static_cast<int32_t>(static_cast<uint32_t>(x) << 8) >> 8; }
uint32_t unsigned24(uint32_t x) { return x & 0xffffffu; }
uint32_t product24(int32_t a, int32_t b) {
  return static_cast<uint32_t>(signed24(a)) * static_cast<uint32_t>(signed24(b));
}

uint32_t field(uint32_t x, uint32_t at, uint32_t size) { return x >> (at & 31) & ((1u << (size & 31)) - 1); }
int32_t signed_field(int32_t x, uint32_t at, uint32_t size) {
  const auto bits = static_cast<uint32_t>(x >> (at & 31));
  const uint32_t up = (32 - (size & 31)) & 31;
  const int32_t extended = static_cast<int32_t>(bits << up) >> up;
  return (size & 31) == 0 ? 0 : extended;
}

uint32_t reversed(uint32_t x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  x = (x >> 8 & 0x00ff00ffu) | (x & 0x00ff00ffu) << 8;
  return x >> 16 | x << 16;
}

// By additions of neighbours, so that it becomes vector code everywhere.
uint32_t bit_count(uint32_t x) {
  x -= x >> 1 & 0x55555555u;
  x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  return x * 0x01010101u >> 24;
}
uint32_t below_top(uint32_t x) {  // all ones from the highest one down
  x |= x >> 1, x |= x >> 2, x |= x >> 4, x |= x >> 8;
  return x | x >> 16;
}
uint32_t leading_zeros(uint32_t x) { return (32 - bit_count(below_top(x))) | (0u - uint32_t{x == 0}); }
uint32_t trailing_zeros(uint32_t x) { return bit_count(~x & (x - 1)) | (0u - uint32_t{x == 0}); }
uint32_t leading_signs(int32_t x) { return leading_zeros(static_cast<uint32_t>(x ^ x >> 31)); }

uint32_t chosen_byte(uint64_t bytes, uint32_t selector) {
  const auto byte = static_cast<uint32_t>(bytes >> (8 * (selector & 7))) & 0xffu;
  const auto sign = static_cast<uint32_t>(bytes >> (16 * (selector & 3) + 15)) & 1u;
  return selector < 8 ? byte : selector < 12 ? 0xffu * sign : selector == 12 ? 0u : 0xffu;
}
uint32_t permuted(uint32_t a, uint32_t b, uint32_t selectors) {
  const uint64_t bytes = uint64_t{a} << 32 | b;
  return chosen_byte(bytes, selectors & 0xff) | chosen_byte(bytes, selectors >> 8 & 0xff) << 8 |
         chosen_byte(bytes, selectors >> 16 & 0xff) << 16 | chosen_byte(bytes, selectors >> 24) << 24;
}

// The selectors are the same for all lanes most of the time: each byte of the result is then a byte of one register, or
// a constant.
template <int L>
[[gnu::flatten]] void permute_bytes(Wave<L>& w, const Instruction& i) {
  detail::Room<uint32_t, L> rooms[3], result;
  const uint32_t* sources[3];
  for (int at = 0; at < 3; ++at) sources[at] = detail::read<L, uint32_t>(w, i.operand[1 + at], rooms[at].lane);
  const auto [high, low, selectors] = sources;
  bool simple = i.operand[3].kind != Kind::kVector;
  for (int byte = 0; byte < 4; ++byte) {
    const uint32_t s = selectors[0] >> 8 * byte & 0xffu;
    simple &= s < 8 || s >= 12;
  }
  if (simple) {
    for (int l = 0; l < L; ++l) result.lane[l] = 0;
    for (int byte = 0; byte < 4; ++byte) {
      const uint32_t s = selectors[0] >> 8 * byte & 0xffu;
      const uint32_t* from = s & 4 ? high : low;
      const uint32_t down = 8 * (s & 3), keep = s < 8 ? 0xffu : 0u, ones = s > 12 ? 0xffu : 0u;
#pragma GCC ivdep
      for (int l = 0; l < L; ++l) result.lane[l] |= ((from[l] >> down & keep) | ones) << 8 * byte;
    }
  } else {
#pragma GCC ivdep
    for (int l = 0; l < L; ++l) result.lane[l] = permuted(high[l], low[l], selectors[l]);
  }
  detail::write<L, uint32_t>(w, i, i.operand[0], result.lane);
}

uint32_t distance(uint32_t a, uint32_t b) { return a > b ? a - b : b - a; }

// The sum of the distances of elements; where Masked, of those whose second one is not zero.
template <int Bits, bool Masked = false>
uint32_t distances(uint32_t a, uint32_t b) {
  constexpr uint32_t kElement = (1u << Bits) - 1;
  uint32_t sum = 0;
#pragma GCC unroll 8
  for (int at = 0; at < 32; at += Bits) {
    const uint32_t x = a >> at & kElement, y = b >> at & kElement;
    sum += Masked & (y == 0) ? 0 : distance(x, y);
  }
  return sum;
}

uint32_t averaged_bytes(uint32_t a, uint32_t b, uint32_t round) {
  uint32_t r = 0;
#pragma GCC unroll 8
  for (int at = 0; at < 32; at += 8) r |= ((a >> at & 0xffu) + (b >> at & 0xffu) + (round >> at & 1u)) >> 1 << at;
  return r;
}

template <class T>
T median_integer(T a, T b, T c) {
  return std::max(std::min(a, b), std::min(std::max(a, b), c));
}

WithMask<uint32_t> add_carry(uint32_t a, uint32_t b, bool carry) {
  const uint64_t sum = uint64_t{a} + b + carry;
  return {static_cast<uint32_t>(sum), sum >> 32 != 0};
}
WithMask<uint32_t> subtract_borrow(uint32_t a, uint32_t b, bool borrow) {
  return {a - b - borrow, uint64_t{b} + borrow > a};
}

int64_t wide(int64_t x) { return x; }

// Lanes below this one that are set in the mask.
template <int L, bool High>
void mask_count(Wave<L>& w, const Instruction& i) {
  detail::Room<uint32_t, L> mask_room, start_room;
  const uint32_t* mask = detail::read<L, uint32_t>(w, i.operand[1], mask_room.lane);
  const uint32_t* start = detail::read<L, uint32_t>(w, i.operand[2], start_room.lane);
  uint32_t result[L];
  for (int l = 0; l < L; ++l) {
    const uint64_t below = (uint64_t{1} << l) - 1;
    result[l] = bit_count(mask[l] & static_cast<uint32_t>(High ? below >> 32 : below)) + start[l];
  }
  detail::write<L, uint32_t>(w, i, i.operand[0], result);
}

template <bool High>
Handler mask_counts(const char* name) {
  return {name, &mask_count<32, High>, &mask_count<64, High>, "u:uu", Flow::kLanes};
}

}  // namespace

Handlers vector_integer() {
  static const Handler table[] = {
      lanes<[](uint32_t a) { return a; }>("v_mov_b32"),
      lanes<[](uint32_t a, uint32_t b) { return Both<uint32_t>{b, a}; }>("v_swap_b32"),
      lanes<[](uint16_t a, uint16_t b) { return Both<uint16_t>{b, a}; }>("v_swap_b16"),
      lanes<[](uint32_t a, uint32_t b) { return a + b; }>("v_add_u32"),
      lanes<[](uint32_t a, uint32_t b) { return a - b; }>("v_sub_u32"),
      lanes<[](uint32_t a, uint32_t b) { return b - a; }>("v_subrev_u32"),
      lanes<[](uint32_t a, uint32_t b) { return a + b; }>("v_add_i32"),
      lanes<[](uint32_t a, uint32_t b) { return a - b; }>("v_sub_i32"),
      lanes<[](uint32_t a, uint32_t b) { return saturated<uint32_t>(wide(a) + wide(b)); }>("v_add_u32_clamp"),
      lanes<[](uint32_t a, uint32_t b) { return saturated<uint32_t>(wide(a) - wide(b)); }>("v_sub_u32_clamp"),
      lanes<[](uint32_t a, uint32_t b) { return saturated<uint32_t>(wide(b) - wide(a)); }>("v_subrev_u32_clamp"),
      lanes<[](int32_t a, int32_t b) { return saturated<int32_t>(wide(a) + wide(b)); }>("v_add_i32_clamp"),
      lanes<[](int32_t a, int32_t b) { return saturated<int32_t>(wide(a) - wide(b)); }>("v_sub_i32_clamp"),
      lanes<[](uint32_t a, uint32_t b) { return add_carry(a, b, false); }>("v_add_co_u32"),
      lanes<[](uint32_t a, uint32_t b) { return subtract_borrow(a, b, false); }>("v_sub_co_u32"),
      lanes<[](uint32_t a, uint32_t b) { return subtract_borrow(b, a, false); }>("v_subrev_co_u32"),
      lanes<[](uint32_t a, uint32_t b, bool c) { return add_carry(a, b, c); }>("v_addc_co_u32"),
      lanes<[](uint32_t a, uint32_t b, bool c) { return subtract_borrow(a, b, c); }>("v_subb_co_u32"),
      lanes<[](uint32_t a, uint32_t b, bool c) { return subtract_borrow(b, a, c); }>("v_subbrev_co_u32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return a + b + c; }>("v_add3_u32"),
      lanes<[](uint32_t a, uint32_t n, uint32_t b) { return (a << (n & 31)) + b; }>("v_lshl_add_u32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t n) { return (a + b) << (n & 31); }>("v_add_lshl_u32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return (a ^ b) + c; }>("v_xad_u32"),

      lanes<[](uint32_t a, uint32_t b) { return a * b; }>("v_mul_lo_u32"),
      lanes<[](uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }>("v_mul_hi_u32"),
      lanes<[](int32_t a, int32_t b) { return static_cast<int32_t>(int64_t{a} * b >> 32); }>("v_mul_hi_i32"),
      lanes<[](uint32_t a, uint32_t b) { return unsigned24(a) * unsigned24(b); }>("v_mul_u32_u24"),
      lanes<[](int32_t a, int32_t b) { return product24(a, b); }>("v_mul_i32_i24"),
      lanes<[](uint32_t a, uint32_t b) {
        return static_cast<uint32_t>(uint64_t{unsigned24(a)} * unsigned24(b) >> 32);
      }>("v_mul_hi_u32_u24"),
      lanes<[](int32_t a, int32_t b) { return static_cast<int32_t>(int64_t{signed24(a)} * signed24(b) >> 32); }>(
          "v_mul_hi_i32_i24"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return unsigned24(a) * unsigned24(b) + c; }>("v_mad_u32_u24"),
      lanes<[](int32_t a, int32_t b, uint32_t c) { return product24(a, b) + c; }>("v_mad_i32_i24"),
      lanes<[](uint16_t a, uint16_t b, uint32_t c) { return uint32_t{a} * b + c; }>("v_mad_u32_u16"),
      lanes<[](int16_t a, int16_t b, uint32_t c) { return static_cast<uint32_t>(a * b) + c; }>("v_mad_i32_i16"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) {
        return saturated<uint32_t>(wide(unsigned24(a)) * wide(unsigned24(b)) + wide(c));
      }>("v_mad_u32_u24_clamp"),
      lanes<[](int32_t a, int32_t b, int32_t c) {
        return saturated<int32_t>(wide(signed24(a)) * wide(signed24(b)) + wide(c));
      }>("v_mad_i32_i24_clamp"),
      lanes<[](uint16_t a, uint16_t b, uint32_t c) { return saturated<uint32_t>(wide(a) * wide(b) + wide(c)); }>(
          "v_mad_u32_u16_clamp"),
      lanes<[](int16_t a, int16_t b, int32_t c) { return saturated<int32_t>(wide(a) * wide(b) + wide(c)); }>(
          "v_mad_i32_i16_clamp"),

      lanes<[](uint32_t a, uint32_t b) { return a & b; }>("v_and_b32"),
      lanes<[](uint32_t a, uint32_t b) { return a | b; }>("v_or_b32"),
      lanes<[](uint32_t a, uint32_t b) { return a ^ b; }>("v_xor_b32"),
      lanes<[](uint32_t a, uint32_t b) { return ~(a ^ b); }>("v_xnor_b32"),
      lanes<[](uint32_t a) { return ~a; }>("v_not_b32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return (a & b) | c; }>("v_and_or_b32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return a | b | c; }>("v_or3_b32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return a ^ b ^ c; }>("v_xor3_b32"),
      lanes<[](uint32_t a, uint32_t n, uint32_t b) { return (a << (n & 31)) | b; }>("v_lshl_or_b32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c, uint32_t table) { return by_truth_table(a, b, c, table); }>(
          "v_bitop3_b32"),
      lanes<[](uint32_t n, uint32_t a) { return a << (n & 31); }>("v_lshlrev_b32"),
      lanes<[](uint32_t n, uint32_t a) { return (a >> (n & 31)); }>("v_lshrrev_b32"),
      lanes<[](uint32_t n, int32_t a) { return (a >> (n & 31)); }>("v_ashrrev_i32"),

      lanes<[](uint32_t a, uint32_t at, uint32_t size) { return field(a, at, size); }>("v_bfe_u32"),
      lanes<[](int32_t a, uint32_t at, uint32_t size) { return signed_field(a, at, size); }>("v_bfe_i32"),
      lanes<[](uint32_t mask, uint32_t a, uint32_t b) { return (mask & a) | (~mask & b); }>("v_bfi_b32"),
      lanes<[](uint32_t size, uint32_t at) { return ((1u << (size & 31)) - 1) << (at & 31); }>("v_bfm_b32"),
      lanes<[](uint32_t a) { return reversed(a); }>("v_bfrev_b32"),
      lanes<[](uint32_t a, uint32_t b) { return bit_count(a) + b; }>("v_bcnt_u32_b32"),
      lanes<[](uint32_t a) { return leading_zeros(a); }>("v_ffbh_u32"),
      lanes<[](int32_t a) { return leading_signs(a); }>("v_ffbh_i32"),
      lanes<[](uint32_t a) { return trailing_zeros(a); }>("v_ffbl_b32"),
      mask_counts<false>("v_mbcnt_lo_u32_b32"),
      mask_counts<true>("v_mbcnt_hi_u32_b32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t n) {
        return static_cast<uint32_t>((uint64_t{a} << 32 | b) >> (n & 31));
      }>("v_alignbit_b32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t n) {
        return static_cast<uint32_t>((uint64_t{a} << 32 | b) >> (8 * (n & 3)));
      }>("v_alignbyte_b32"),
      {"v_perm_b32", &permute_bytes<32>, &permute_bytes<64>, "u:uuu", Flow::kLanes},
      lanes<[](uint32_t a) { return a << 1 ^ (a >> 31 ? 197u : 0u); }>("v_prng_b32"),

      lanes<[](uint32_t a, uint32_t b) { return std::max(a, b); }>("v_max_u32"),
      lanes<[](uint32_t a, uint32_t b) { return std::min(a, b); }>("v_min_u32"),
      lanes<[](int32_t a, int32_t b) { return std::max(a, b); }>("v_max_i32"),
      lanes<[](int32_t a, int32_t b) { return std::min(a, b); }>("v_min_i32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return std::max(std::max(a, b), c); }>("v_max3_u32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return std::min(std::min(a, b), c); }>("v_min3_u32"),
      lanes<[](int32_t a, int32_t b, int32_t c) { return std::max(std::max(a, b), c); }>("v_max3_i32"),
      lanes<[](int32_t a, int32_t b, int32_t c) { return std::min(std::min(a, b), c); }>("v_min3_i32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return median_integer(a, b, c); }>("v_med3_u32"),
      lanes<[](int32_t a, int32_t b, int32_t c) { return median_integer(a, b, c); }>("v_med3_i32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return std::min(std::max(a, b), c); }>("v_maxmin_u32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return std::max(std::min(a, b), c); }>("v_minmax_u32"),
      lanes<[](int32_t a, int32_t b, int32_t c) { return std::min(std::max(a, b), c); }>("v_maxmin_i32"),
      lanes<[](int32_t a, int32_t b, int32_t c) { return std::max(std::min(a, b), c); }>("v_minmax_i32"),

      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return distances<8>(a, b) + c; }>("v_sad_u8"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return (distances<8>(a, b) << 16) + c; }>("v_sad_hi_u8"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return distances<16>(a, b) + c; }>("v_sad_u16"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return distance(a, b) + c; }>("v_sad_u32"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return distances<8, true>(a, b) + c; }>("v_msad_u8"),
      lanes<[](uint32_t a, uint32_t b, uint32_t c) { return averaged_bytes(a, b, c); }>("v_lerp_u8"),

      lanes<[](int16_t a) { return int32_t{a}; }>("v_cvt_i32_i16"),
      lanes<[](uint16_t a) { return uint32_t{a}; }>("v_cvt_u32_u16"),
      lanes<[](int32_t a, int32_t b) {
        return pair(static_cast<uint16_t>(saturated<int16_t>(a)), static_cast<uint16_t>(saturated<int16_t>(b)));
      }>("v_cvt_pk_i16_i32"),
      lanes<[](uint32_t a, uint32_t b) { return pair(saturated<uint16_t>(wide(a)), saturated<uint16_t>(wide(b))); }>(
          "v_cvt_pk_u16_u32"),
      lanes<[](int32_t a, int32_t b, uint32_t n) {
        const auto byte = [n](int32_t x) { return std::clamp(x >> (n & 31), -128, 127) & 0xff; };
        return static_cast<uint16_t>(byte(a) | byte(b) << 8);
      }>("v_ashr_pk_i8_i32"),
      lanes<[](int32_t a, int32_t b, uint32_t n) {
        const auto byte = [n](int32_t x) { return std::clamp(x >> (n & 31), 0, 255); };
        return static_cast<uint16_t>(byte(a) | byte(b) << 8);
      }>("v_ashr_pk_u8_i32"),
  };
  return table;
}

}  // namespace amdgpu
