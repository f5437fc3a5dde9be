// SPDX-License-Identifier: Apache-2.0
// Operands of vector instructions: a value of every lane.
#pragma once

#include <bit>
#include <cstdint>
#include <string>
#include <type_traits>

#include "handler.h"
#include "lane_types.h"
#include "wave.h"

namespace amdgpu {

namespace detail {

constexpr int part_at(Part part) {
  return part == Part::kHigh ? 16 : part >= Part::kByte0 ? 8 * (static_cast<int>(part) - 3) : 0;
}

// The part of a register's word that an operand names.
inline uint32_t take_part(uint32_t word, Part part, bool sign_extend) {
  const int size = part == Part::kWhole ? 32 : part >= Part::kByte0 ? 8 : 16;
  const uint32_t up = word << (32 - size - part_at(part));
  return sign_extend ? static_cast<uint32_t>(static_cast<int32_t>(up) >> (32 - size)) : up >> (32 - size);
}

// What an operand's flags do to the sign bit of its values: `bits & keep ^ flip`.
template <class Bits>
struct SignChange {
  Bits keep, flip;

  explicit SignChange(uint8_t flags) {
    constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
    keep = flags & operand_flag::kAbsolute ? static_cast<Bits>(~kSign) : static_cast<Bits>(~Bits{0});
    flip = flags & operand_flag::kNegate ? kSign : Bits{0};
  }
  Bits operator()(Bits bits) const { return static_cast<Bits>((bits & keep) ^ flip); }
};

// Compiled once, in operands.cpp, for each type of value.
template <int L, class T>
struct ValuesOf {
  // As read(), of any operand: its values are put together in `room`.
  static void gather(const Wave<L>& w, const Operand& o, Stored<T> (&room)[L]);

  // Writes a result, after what the instruction does to results (clamp, omod), to the active lanes only; a mask's
  // other bits become zero. May change `r`.
  static void write(Wave<L>& w, const Instruction& i, const Operand& o, Stored<T> (&r)[L]);
};

// The values of a source operand in all lanes: in place where the register holds just that, else in `room`.
template <int L, class T>
inline const Stored<T>* read(const Wave<L>& w, const Operand& o, Stored<T> (&room)[L]) {
  if constexpr ((sizeof(T) == 4 && std::is_arithmetic_v<T>) || sizeof(T) == 2) {
    constexpr int kSigns = operand_flag::kNegate | operand_flag::kAbsolute;
    const bool in_place = o.part == Part::kWhole || (sizeof(T) == 2 && o.part == Part::kLow);
    if (o.kind == Kind::kVector && in_place && !(o.flags & kSigns)) {
      return reinterpret_cast<const Stored<T>*>(w.v[o.reg]);
    }
  }
  ValuesOf<L, T>::gather(w, o, room);
  return room;
}

template <int L>
inline void write_words(Wave<L>& w, int reg, const uint32_t* value) {
  uint32_t* to = w.v[reg];
  for (int l = 0; l < L; ++l) to[l] = (value[l] & w.active[l]) | (to[l] & ~w.active[l]);
}

template <int L, class R>
inline void write(Wave<L>& w, const Instruction& i, const Operand& o, Stored<R> (&r)[L]) {
  ValuesOf<L, R>::write(w, i, o, r);
}

// Of a pair of floats the one that the low (or high) result is made of, as the operand's flags choose it: the two of a
// register are never put next to each other.
template <int L>
inline const float* read_float_of_pair(const Wave<L>& w, const Operand& o, bool high, float (&room)[L]) {
  const bool from_high = o.flags & (high ? operand_flag::kHighFromHigh : operand_flag::kLowFromHigh);
  const bool negate = o.flags & (high ? operand_flag::kNegateHigh : operand_flag::kNegate);
  const auto flags = static_cast<uint8_t>((o.flags & operand_flag::kAbsolute) | (negate ? operand_flag::kNegate : 0));
  if (o.kind == Kind::kConstant) {
    const auto bits = static_cast<uint32_t>(w.constant(o) >> (from_high ? 32 : 0));
    const float value = std::bit_cast<float>(SignChange<uint32_t>(flags)(bits));
    for (int l = 0; l < L; ++l) room[l] = value;
    return room;
  }
  const Operand one{o.kind, 1, Part::kWhole, flags, static_cast<uint16_t>(o.reg + from_high), 0};
  return read<L, float>(w, one, room);
}

template <int L>
inline void write_float_pair(Wave<L>& w, const Instruction& i, float (&low)[L], float (&high)[L]) {
  Operand to = i.operand[0];
  write<L, float>(w, i, to, low);
  ++to.reg;
  write<L, float>(w, i, to, high);
}

// Not inline: tables are long.
Handler handler(std::string name, Run<32> run32, Run<64> run64, const char* types, Flow flow);

}  // namespace detail

}  // namespace amdgpu
