// SPDX-License-Identifier: Apache-2.0
// A function of one lane's values becomes a handler of waves: its parameter types say how operands are read.
#pragma once

#include <cstdint>
#include <tuple>
#include <type_traits>
#include <utility>

#include "half.h"
#include "handler.h"
#include "wave.h"

namespace amdgpu {

// Two 16-bit values of one register, which packed instructions choose and negate one by one.
struct Pair {
  uint16_t low, high;
};
struct HalfPair {  // as Pair; signs may be changed
  Half low, high;
};
struct FloatPair {
  float low, high;
};

// A value and a bit of the mask that is the second result: carries, and the like.
template <class T>
struct WithMask {
  T value;
  bool mask;
};

template <class T>
constexpr char letter() {
  if constexpr (std::is_same_v<T, uint32_t>) return 'u';
  else if constexpr (std::is_same_v<T, int32_t>) return 'i';
  else if constexpr (std::is_same_v<T, uint64_t>) return 'U';
  else if constexpr (std::is_same_v<T, int64_t>) return 'I';
  else if constexpr (std::is_same_v<T, uint16_t>) return 't';
  else if constexpr (std::is_same_v<T, int16_t>) return 's';
  else if constexpr (std::is_same_v<T, float>) return 'f';
  else if constexpr (std::is_same_v<T, double>) return 'd';
  else if constexpr (std::is_same_v<T, Half>) return 'h';
  else if constexpr (std::is_same_v<T, bool>) return 'm';
  else if constexpr (std::is_same_v<T, Pair>) return 'p';
  else if constexpr (std::is_same_v<T, HalfPair>) return 'q';
  else if constexpr (std::is_same_v<T, FloatPair>) return 'F';
  else static_assert(!sizeof(T), "no letter for this type");
}

namespace detail {

template <class T>
constexpr bool kFloating = std::is_same_v<T, float> || std::is_same_v<T, double> || std::is_same_v<T, Half>;
template <class T>
constexpr bool kPacked = std::is_same_v<T, Pair> || std::is_same_v<T, HalfPair> || std::is_same_v<T, FloatPair>;

template <class T>
T with_sign_flags(T x, bool absolute, bool negate) {
  using Bits = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;
  constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(T) - 1));
  Bits bits = std::bit_cast<Bits>(x);
  bits = static_cast<Bits>(absolute ? bits & static_cast<Bits>(~kSign) : bits);
  bits = static_cast<Bits>(negate ? bits ^ kSign : bits);
  return std::bit_cast<T>(bits);
}

// The part of a register's word that an operand names.
inline uint32_t take_part(uint32_t word, Part part, bool sign_extend) {
  const int at = part == Part::kHigh ? 16 : part >= Part::kByte0 ? 8 * (static_cast<int>(part) - 3) : 0;
  const int size = part == Part::kWhole ? 32 : part >= Part::kByte0 ? 8 : 16;
  const uint32_t up = word << (32 - size - at);
  return sign_extend ? static_cast<uint32_t>(static_cast<int32_t>(up) >> (32 - size)) : up >> (32 - size);
}

template <class T>
T from_constant(uint64_t value) {
  if constexpr (sizeof(T) == 8) return std::bit_cast<T>(value);
  else if constexpr (sizeof(T) == 2) return std::bit_cast<T>(static_cast<uint16_t>(value));
  else return std::bit_cast<T>(static_cast<uint32_t>(value));
}

// The values of a source operand in all lanes: in place where the register holds just that, else in `room`.
template <int L, class T>
const T* read(const Wave<L>& w, const Operand& o, T (&room)[L]) {
  if constexpr (std::is_same_v<T, bool>) {
    const uint64_t mask = w.mask(o);
    for (int l = 0; l < L; ++l) room[l] = mask >> l & 1;
    return room;
  } else if constexpr (kPacked<T>) {
    using E = decltype(T::low);
    using Word = std::conditional_t<sizeof(E) == 4, uint64_t, uint32_t>;
    constexpr int kBits = 8 * sizeof(E);
    const int low = o.flags & operand_flag::kLowFromHigh ? kBits : 0;
    const int high = o.flags & operand_flag::kHighFromHigh ? kBits : 0;
    const bool negate_low = o.flags & operand_flag::kNegate, negate_high = o.flags & operand_flag::kNegateHigh;
    const bool absolute = o.flags & operand_flag::kAbsolute;
    const uint64_t scalar = o.kind == Kind::kVector ? 0 : w.scalar(o);
    for (int l = 0; l < L; ++l) {
      Word word = static_cast<Word>(scalar);
      if (o.kind == Kind::kVector) {
        word = w.v[o.reg][l];
        if constexpr (sizeof(E) == 4) word |= static_cast<Word>(w.v[o.reg + 1][l]) << 32;
      }
      room[l].low = with_sign_flags(from_constant<E>(word >> low), absolute, negate_low);
      room[l].high = with_sign_flags(from_constant<E>(word >> high), absolute, negate_high);
    }
    return room;
  } else {
    const bool sign_flags = o.flags & (operand_flag::kNegate | operand_flag::kAbsolute);
    if (o.kind != Kind::kVector) {
      T value = from_constant<T>(w.scalar(o));
      if (o.part != Part::kWhole) {
        value = from_constant<T>(take_part(static_cast<uint32_t>(w.scalar(o)), o.part, o.flags & operand_flag::kSignExtend));
      }
      if (sign_flags) value = with_sign_flags(value, o.flags & operand_flag::kAbsolute, o.flags & operand_flag::kNegate);
      for (int l = 0; l < L; ++l) room[l] = value;
      return room;
    }
    if constexpr (sizeof(T) == 8) {
      const uint32_t *low = w.v[o.reg], *high = w.v[o.reg + 1];
      for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(low[l] | uint64_t{high[l]} << 32);
    } else if constexpr (sizeof(T) == 4) {
      const uint32_t* word = w.v[o.reg];
      if (o.part == Part::kWhole) {
        if (!sign_flags) return reinterpret_cast<const T*>(word);
        for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(word[l]);
      } else {
        const bool extend = o.flags & operand_flag::kSignExtend;
        for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(take_part(word[l], o.part, extend));
      }
    } else {
      const uint32_t* word = w.v[o.reg];
      if (o.part >= Part::kByte0) {
        const bool extend = o.flags & operand_flag::kSignExtend;
        for (int l = 0; l < L; ++l) room[l] = from_constant<T>(take_part(word[l], o.part, extend));
      } else {
        const int shift = o.part == Part::kHigh ? 16 : 0;
        for (int l = 0; l < L; ++l) room[l] = std::bit_cast<T>(static_cast<uint16_t>(word[l] >> shift));
      }
    }
    if (sign_flags) {
      const bool absolute = o.flags & operand_flag::kAbsolute, negate = o.flags & operand_flag::kNegate;
      for (int l = 0; l < L; ++l) room[l] = with_sign_flags(room[l], absolute, negate);
    }
    return room;
  }
}

template <int L>
void write_words(Wave<L>& w, int reg, const uint32_t* value) {
  uint32_t* to = w.v[reg];
  for (int l = 0; l < L; ++l) to[l] = (value[l] & w.active[l]) | (to[l] & ~w.active[l]);
}

template <int L, class T>
void shape_output(const Instruction& i, T (&r)[L]) {
  if constexpr (std::is_same_v<T, float> || std::is_same_v<T, double>) {
    const int shift = (i.flags & instruction_flag::kOutputMask) / 2;
    if (shift) {
      const T factor = shift == 1 ? T(2) : shift == 2 ? T(4) : T(0.5);
      for (int l = 0; l < L; ++l) r[l] *= factor;
    }
    if (i.flags & instruction_flag::kClamp) {  // NaN becomes 0
      for (int l = 0; l < L; ++l) r[l] = r[l] > T(0) ? (r[l] < T(1) ? r[l] : T(1)) : T(0);
    }
  } else if constexpr (std::is_same_v<T, Half>) {
    if (i.flags & instruction_flag::kClamp) {
      for (int l = 0; l < L; ++l) {
        const float x = to_float(r[l]);
        r[l] = x > 0 ? (x < 1 ? r[l] : Half{0x3c00}) : Half{0};
      }
    }
  }
}

// Results go to the active lanes only.
template <int L, class R>
void write(Wave<L>& w, const Instruction& i, const Operand& o, R (&r)[L]) {
  shape_output<L>(i, r);
  if constexpr (std::is_same_v<R, bool>) {
    uint64_t mask = 0;
    for (int l = 0; l < L; ++l) mask |= uint64_t{r[l] && w.active[l]} << l;
    w.set_mask(o.reg, mask);
  } else if constexpr (sizeof(R) == 8) {
    uint32_t word[L];
    for (int half = 0; half < 2; ++half) {
      for (int l = 0; l < L; ++l) word[l] = static_cast<uint32_t>(std::bit_cast<uint64_t>(r[l]) >> (32 * half));
      write_words<L>(w, o.reg + half, word);
    }
  } else {
    uint32_t word[L];
    for (int l = 0; l < L; ++l) {
      if constexpr (sizeof(R) == 4) word[l] = std::bit_cast<uint32_t>(r[l]);
      else word[l] = std::bit_cast<uint16_t>(r[l]);
    }
    if (o.part != Part::kWhole) {
      const int at = o.part == Part::kHigh ? 16 : o.part >= Part::kByte0 ? 8 * (static_cast<int>(o.part) - 3) : 0;
      const uint32_t bits = (o.part >= Part::kByte0 ? 0xffu : 0xffffu) << at;
      const uint32_t kept = o.flags & operand_flag::kZeroRest ? 0 : ~bits;
      const uint32_t* old = w.v[o.reg];
      for (int l = 0; l < L; ++l) word[l] = (word[l] << at & bits) | (old[l] & kept);
    }
    write_words<L>(w, o.reg, word);
  }
}

template <class R>
std::string result_types() {
  return {letter<R>()};
}
template <class R>
  requires requires(R r) { r.mask; }
std::string result_types() {
  return {letter<decltype(R::value)>(), 'm'};
}

template <class F>
struct Signature;
template <class C, class R, class... A>
struct Signature<R (C::*)(A...) const> {
  using Result = R;
  using Sources = std::tuple<A...>;
  static std::string types() { return result_types<R>() + ":" + std::string{letter<A>()...}; }
};
template <auto F>
using SignatureOf = Signature<decltype(&decltype(F)::operator())>;

// Where a source that is not simply a register is put together. Its constructor does nothing, so that it costs nothing.
template <class T, int L>
struct Room {
  Room() {}  // NOLINT
  alignas(64) T lane[L];
};

template <class R>
constexpr int kResults = 1;
template <class T>
constexpr int kResults<WithMask<T>> = 2;

template <int L, auto F, class R, class... A, size_t... At>
void apply(Wave<L>& w, const Instruction& i, std::tuple<A...>*, std::index_sequence<At...>) {
  std::tuple<Room<A, L>...> rooms;
  const std::tuple<const A*...> sources{read<L, A>(w, i.operand[kResults<R> + At], std::get<At>(rooms).lane)...};
  if constexpr (kResults<R> == 2) {
    alignas(64) decltype(R::value) value[L];
    alignas(64) bool mask[L];
    for (int l = 0; l < L; ++l) {
      const R both = F(std::get<At>(sources)[l]...);
      value[l] = both.value, mask[l] = both.mask;
    }
    write<L>(w, i, i.operand[0], value);
    write<L>(w, i, i.operand[1], mask);
  } else {
    alignas(64) R result[L];
    for (int l = 0; l < L; ++l) result[l] = F(std::get<At>(sources)[l]...);
    write<L>(w, i, i.operand[0], result);
  }
}

template <int L, auto F>
void elementwise(Wave<L>& w, const Instruction& i) {
  using S = SignatureOf<F>;
  apply<L, F, typename S::Result>(w, i, static_cast<typename S::Sources*>(nullptr),
                                  std::make_index_sequence<std::tuple_size_v<typename S::Sources>>{});
}

}  // namespace detail

// A handler of the name that does F in every active lane.
template <auto F>
Handler lanes(const char* name) {
  return {name, &detail::elementwise<32, F>, &detail::elementwise<64, F>, detail::SignatureOf<F>::types(),
          Flow::kLanes};
}

}  // namespace amdgpu
