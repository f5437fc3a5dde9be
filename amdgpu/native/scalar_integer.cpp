// SPDX-License-Identifier: Apache-2.0
// Scalar instructions on integers and masks.
#include <bit>
#include <type_traits>
#include <vector>

#include "scalar.h"
#include "tables.h"

namespace amdgpu {

namespace {

using I32 = int32_t;
using U32 = uint32_t;
using U64 = uint64_t;

template <class T>
constexpr U32 kBits = 8 * sizeof(T);

// The result, and whether it is not zero in SCC.
template <class T>
T tested(bool& scc, T result) {
  scc = result != 0;
  return result;
}

template <class T>
T low_ones(U32 count) {
  return count >= kBits<T> ? static_cast<T>(~T{0}) : static_cast<T>((T{1} << count) - 1);
}

// A field's place is in the low bits of `where`, its size in those from 16 on.
template <class T>
T field(T x, U32 where) {
  return static_cast<T>((x >> (where & (kBits<T> - 1))) & low_ones<T>(where >> 16 & 0x7f));
}
template <class T>
T signed_field(T x, U32 where) {
  const U32 size = where >> 16 & 0x7f;
  const T bits = static_cast<T>(x >> (where & (kBits<T> - 1)));
  if (size == 0) return 0;
  if (size >= kBits<T>) return bits;
  const U32 up = kBits<T> - size;
  return static_cast<T>(static_cast<T>(static_cast<std::make_unsigned_t<T>>(bits) << up) >> up);
}

template <class T>
T reversed(T x) {
  T r = 0;
  for (U32 bit = 0; bit < kBits<T>; ++bit) r = static_cast<T>(r << 1 | (x >> bit & 1));
  return r;
}

// -1 where there is none.
template <class T>
I32 first_one(T x) {
  return x == 0 ? -1 : std::countr_zero(x);
}
template <class T>
I32 leading_zeros(T x) {
  return x == 0 ? -1 : std::countl_zero(x);
}
template <class T>
I32 leading_signs(T x) {
  return leading_zeros(static_cast<std::make_unsigned_t<T>>(x ^ (x >> (kBits<T> - 1))));
}

// Of each four bits, whether one is set: as one bit, or as all four.
template <class T>
T quads(T x) {
  T r = 0;
  for (U32 quad = 0; quad < kBits<T> / 4; ++quad) r |= static_cast<T>((x >> 4 * quad & 15) != 0) << quad;
  return r;
}
template <class T>
T whole_quads(T x) {
  T r = 0;
  for (U32 at = 0; at < kBits<T>; at += 4) r |= static_cast<T>((x >> at & 15) != 0 ? 15 : 0) << at;
  return r;
}

U64 doubled_bits(U32 x) {
  U64 r = 0;
  for (U32 bit = 0; bit < 32; ++bit) r |= U64{x >> bit & 1} * 3 << 2 * bit;
  return r;
}

U32 add(bool& scc, U32 a, U32 b, bool carry) {
  const U64 sum = U64{a} + b + carry;
  scc = sum >> 32;
  return static_cast<U32>(sum);
}
U32 subtract(bool& scc, U32 a, U32 b, bool borrow) {
  scc = U64{b} + borrow > a;
  return a - b - borrow;
}
I32 fitted(bool& overflow, int64_t exact) {
  const auto r = static_cast<I32>(exact);
  overflow = r != exact;
  return r;
}
template <int N>
U32 shift_add(bool& scc, U32 a, U32 b) {
  const U64 sum = (U64{a} << N) + b;
  scc = sum >> 32 != 0;
  return static_cast<U32>(sum);
}

U32 packed(U32 low, U32 high) { return (low & 0xffffu) | high << 16; }

// Everything that exists for 32 and for 64 bits: `b` is "b32" or "b64", `n` is "32" or "64".
template <class T>
void add_bitwise(std::vector<Handler>& table, const std::string& n) {
  using Signed = std::make_signed_t<T>;
  const std::string b = "b" + n;
  const Handler both[] = {
      scalars<[](T a) { return a; }>("s_mov_" + b),
      scalars<[](bool& scc, T old, T a) { return scc ? a : old; }>("s_cmov_" + b),
      scalars<[](bool& scc, T a, T other) { return scc ? a : other; }>("s_cselect_" + b),
      scalars<[](bool& scc, T a) { return tested<T>(scc, ~a); }>("s_not_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, a & c); }>("s_and_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, a | c); }>("s_or_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, a ^ c); }>("s_xor_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, a & ~c); }>("s_andn2_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, a | ~c); }>("s_orn2_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, ~(a & c)); }>("s_nand_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, ~(a | c)); }>("s_nor_" + b),
      scalars<[](bool& scc, T a, T c) { return tested<T>(scc, ~(a ^ c)); }>("s_xnor_" + b),
      scalars<[](bool& scc, T a, U32 k) { return tested<T>(scc, a << (k & (kBits<T> - 1))); }>("s_lshl_" + b),
      scalars<[](bool& scc, T a, U32 k) { return tested<T>(scc, a >> (k & (kBits<T> - 1))); }>("s_lshr_" + b),
      scalars<[](bool& scc, Signed a, U32 k) { return tested<Signed>(scc, a >> (k & (kBits<T> - 1))); }>("s_ashr_i" +
                                                                                                         n),
      scalars<[](bool& scc, T a, U32 where) { return tested<T>(scc, field(a, where)); }>("s_bfe_u" + n),
      scalars<[](bool& scc, Signed a, U32 where) { return tested(scc, signed_field(a, where)); }>("s_bfe_i" + n),
      scalars<[](U32 size, U32 at) {
        return static_cast<T>(low_ones<T>(size & (kBits<T> - 1)) << (at & (kBits<T> - 1)));
      }>("s_bfm_" + b),
      scalars<[](bool& scc, T a, U32 bit) {
        scc = !(a >> (bit & (kBits<T> - 1)) & 1);
        return Nothing{};
      }>("s_bitcmp0_" + b),
      scalars<[](bool& scc, T a, U32 bit) {
        scc = (a >> (bit & (kBits<T> - 1))) & 1;
        return Nothing{};
      }>("s_bitcmp1_" + b),
      scalars<[](T old, U32 bit) { return static_cast<T>(old & ~(T{1} << (bit & (kBits<T> - 1)))); }>("s_bitset0_" + b),
      scalars<[](T old, U32 bit) { return static_cast<T>(old | T{1} << (bit & (kBits<T> - 1))); }>("s_bitset1_" + b),
      scalars<[](T a) { return reversed(a); }>("s_brev_" + b),
      scalars<[](bool& scc, T a) { return tested<I32>(scc, std::popcount(static_cast<T>(~a))); }>("s_bcnt0_i32_" + b),
      scalars<[](bool& scc, T a) { return tested<I32>(scc, std::popcount(a)); }>("s_bcnt1_i32_" + b),
      scalars<[](T a) { return first_one(static_cast<T>(~a)); }>("s_ff0_i32_" + b),
      scalars<[](T a) { return first_one(a); }>("s_ff1_i32_" + b),
      scalars<[](T a) { return leading_zeros(a); }>("s_flbit_i32_" + b),
      scalars<[](bool& scc, T a) { return tested<T>(scc, quads(a)); }>("s_quadmask_" + b),
      scalars<[](bool& scc, T a) { return tested<T>(scc, whole_quads(a)); }>("s_wqm_" + b),

      exec_masks<T, [](T a, T exec) { return static_cast<T>(a & exec); }>("s_and_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(a | exec); }>("s_or_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(a ^ exec); }>("s_xor_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(~(a & exec)); }>("s_nand_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(~(a | exec)); }>("s_nor_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(~(a ^ exec)); }>("s_xnor_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(~a & exec); }>("s_andn1_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(a & ~exec); }>("s_andn2_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(~a | exec); }>("s_orn1_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(a | ~exec); }>("s_orn2_saveexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(~a & exec); }, true>("s_andn1_wrexec_" + b),
      exec_masks<T, [](T a, T exec) { return static_cast<T>(a & ~exec); }, true>("s_andn2_wrexec_" + b),
  };
  table.insert(table.end(), std::begin(both), std::end(both));
}

// s_cmp and, with a constant K in the instruction, s_cmpk; by the set of relations in which they hold: 1 less, 2 equal,
// 4 greater.
constexpr const char* kRelations[] = {"", "lt", "eq", "le", "gt", "lg", "ge"};

template <class T, class K>
void add_comparisons(std::vector<Handler>& table, const std::string& name, const std::string& type) {
  [&]<size_t... Set>(std::index_sequence<Set...>) {
    (table.push_back(scalars<[](bool& scc, T a, K k) {
      const T b = k;
      scc = ((Set + 1) & 1 && a < b) || ((Set + 1) & 2 && a == b) || ((Set + 1) & 4 && a > b);
      return Nothing{};
    }>(name + kRelations[Set + 1] + "_" + type)),
     ...);
  }(std::make_index_sequence<6>{});
}

}  // namespace

Handlers scalar_integer() {
  static const std::vector<Handler> all = [] {
    std::vector<Handler> table{
        scalars<[](bool& scc, U32 a, U32 b) { return add(scc, a, b, false); }>("s_add_u32"),
        scalars<[](bool& scc, U32 a, U32 b) { return add(scc, a, b, scc); }>("s_addc_u32"),
        scalars<[](bool& scc, U32 a, U32 b) { return subtract(scc, a, b, false); }>("s_sub_u32"),
        scalars<[](bool& scc, U32 a, U32 b) { return subtract(scc, a, b, scc); }>("s_subb_u32"),
        scalars<[](bool& scc, I32 a, I32 b) { return fitted(scc, int64_t{a} + b); }>("s_add_i32"),
        scalars<[](bool& scc, I32 a, I32 b) { return fitted(scc, int64_t{a} - b); }>("s_sub_i32"),
        scalars<[](bool& scc, I32 old, int16_t k) { return fitted(scc, int64_t{old} + k); }>("s_addk_i32"),
        scalars<[](U64 a, U64 b) { return a + b; }>("s_add_nc_u64"),
        scalars<[](U64 a, U64 b) { return a - b; }>("s_sub_nc_u64"),
        scalars<[](bool& scc, U32 a, U32 b) { return shift_add<1>(scc, a, b); }>("s_lshl1_add_u32"),
        scalars<[](bool& scc, U32 a, U32 b) { return shift_add<2>(scc, a, b); }>("s_lshl2_add_u32"),
        scalars<[](bool& scc, U32 a, U32 b) { return shift_add<3>(scc, a, b); }>("s_lshl3_add_u32"),
        scalars<[](bool& scc, U32 a, U32 b) { return shift_add<4>(scc, a, b); }>("s_lshl4_add_u32"),
        scalars<[](U32 a, U32 b) { return a * b; }>("s_mul_i32"),
        scalars<[](U32 old, int16_t k) { return old * static_cast<U32>(int32_t{k}); }>("s_mulk_i32"),
        scalars<[](U32 a, U32 b) { return static_cast<U32>(U64{a} * b >> 32); }>("s_mul_hi_u32"),
        scalars<[](I32 a, I32 b) { return static_cast<I32>(int64_t{a} * b >> 32); }>("s_mul_hi_i32"),
        scalars<[](U64 a, U64 b) { return a * b; }>("s_mul_u64"),
        scalars<[](bool& scc, I32 a) { return tested(scc, a < 0 ? 0 - static_cast<U32>(a) : static_cast<U32>(a)); }>(
            "s_abs_i32"),
        scalars<[](bool& scc, I32 a, I32 b) {
          return tested(scc,
                        a > b ? static_cast<U32>(a) - static_cast<U32>(b) : static_cast<U32>(b) - static_cast<U32>(a));
        }>("s_absdiff_i32"),
        // SCC says that the first one was taken.
        scalars<[](bool& scc, I32 a, I32 b) { return (scc = a < b) ? a : b; }>("s_min_i32"),
        scalars<[](bool& scc, U32 a, U32 b) { return (scc = a < b) ? a : b; }>("s_min_u32"),
        scalars<[](bool& scc, I32 a, I32 b) { return (scc = a >= b) ? a : b; }>("s_max_i32"),
        scalars<[](bool& scc, U32 a, U32 b) { return (scc = a >= b) ? a : b; }>("s_max_u32"),
        scalars<[](int16_t k) { return I32{k}; }>("s_movk_i32"),
        scalars<[](bool& scc, I32 old, int16_t k) { return scc ? I32{k} : old; }>("s_cmovk_i32"),
        scalars<[](U32 a) { return I32{static_cast<int8_t>(a)}; }>("s_sext_i32_i8"),
        scalars<[](U32 a) { return I32{static_cast<int16_t>(a)}; }>("s_sext_i32_i16"),
        scalars<[](I32 a) { return leading_signs(a); }>("s_flbit_i32"),
        scalars<[](int64_t a) { return leading_signs(a); }>("s_flbit_i32_i64"),
        scalars<[](U32 a) { return doubled_bits(a); }>("s_bitreplicate_b64_b32"),
        scalars<[](U32 a, U32 b) { return packed(a, b); }>("s_pack_ll_b32_b16"),
        scalars<[](U32 a, U32 b) { return packed(a, b >> 16); }>("s_pack_lh_b32_b16"),
        scalars<[](U32 a, U32 b) { return packed(a >> 16, b >> 16); }>("s_pack_hh_b32_b16"),
        scalars<[](U32 a, U32 b) { return packed(a >> 16, b); }>("s_pack_hl_b32_b16"),
        scalars<[](bool& scc, U64 a, U64 b) {
          scc = a == b;
          return Nothing{};
        }>("s_cmp_eq_u64"),
        scalars<[](bool& scc, U64 a, U64 b) {
          scc = a != b;
          return Nothing{};
        }>("s_cmp_lg_u64"),
    };
    add_bitwise<U32>(table, "32");
    add_bitwise<U64>(table, "64");
    add_comparisons<I32, I32>(table, "s_cmp_", "i32");
    add_comparisons<U32, U32>(table, "s_cmp_", "u32");
    add_comparisons<I32, int16_t>(table, "s_cmpk_", "i32");
    add_comparisons<U32, uint16_t>(table, "s_cmpk_", "u32");
    return table;
  }();
  return all;
}

}  // namespace amdgpu
