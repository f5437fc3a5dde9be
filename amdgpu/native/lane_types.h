// SPDX-License-Identifier: Apache-2.0
// The types of one lane's values that handlers are written in, beside those of C++: they say how operands are read.
#pragma once

#include <bit>
#include <cstdint>
#include <type_traits>

#include "half.h"

namespace amdgpu {

// Two 16-bit values of one register, which packed instructions choose and negate one by one. As a word, so that loops
// need not take arrays of them apart.
struct Pair {
  using Element = uint16_t;
  uint32_t word;

  uint16_t low() const { return static_cast<uint16_t>(word); }
  uint16_t high() const { return static_cast<uint16_t>(word >> 16); }
};
inline Pair pair(uint16_t low, uint16_t high) { return {low | uint32_t{high} << 16}; }

struct HalfPair {
  using Element = Half;
  uint32_t word;

  Half low() const { return {static_cast<uint16_t>(word)}; }
  Half high() const { return {static_cast<uint16_t>(word >> 16)}; }
};
inline HalfPair pair(Half low, Half high) { return {low.bits | uint32_t{high.bits} << 16}; }

// Of two registers; a result. Functions of pairs of floats do without, see float_pairs() in elementwise.h.
struct FloatPair {
  using Element = float;
  uint32_t low_bits, high_bits;

  float low() const { return as_float(low_bits); }
  float high() const { return as_float(high_bits); }
};
inline FloatPair pair(float low, float high) { return {as_bits(low), as_bits(high)}; }

// An operand of the mixed-precision instructions: the register is a float, or one of its halves is a half.
struct Mixed {
  float value;
};

// A register of small integers of dot products; a flag of the operand says whether they have signs.
struct Integers {
  uint32_t word, has_signs;
};

// A value and a bit, 0 or 1, of the mask that is the second result: carries, and the like. (A bool here would keep
// loops from becoming vector code.)
template <class T>
struct WithMask {
  using Second = bool;
  T value;
  uint32_t second;
};

// Two results of one type.
template <class T>
struct Both {
  using Second = T;
  T value, second;
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
  else if constexpr (std::is_same_v<T, Mixed>) return 'M';
  else if constexpr (std::is_same_v<T, Integers>) return 'N';
  else static_assert(!sizeof(T), "no letter for this type");
}

namespace detail {

// The unsigned integer of the size of T.
template <class T>
using BitsOf = std::conditional_t<
    sizeof(T) == 1, uint8_t,
    std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;

// How a lane's value lies in an array. Bits of masks and 16-bit values take a word, as in the registers, so that vector
// code does not have to change the size of elements. Of those, a reader looks at the low bits only.
template <class T>
using Stored = std::conditional_t<sizeof(T) <= 2, uint32_t, T>;

template <class T>
Stored<T> stored(T x) {
  if constexpr (std::is_same_v<T, bool>) return x;
  else if constexpr (sizeof(T) == 2) return std::bit_cast<uint16_t>(x);
  else return x;
}
template <class T>
T loaded(Stored<T> x) {
  if constexpr (std::is_same_v<T, bool>) return x != 0;
  else if constexpr (sizeof(T) == 2) return std::bit_cast<T>(static_cast<uint16_t>(x));
  else return x;
}

template <class... C>
struct TypeString {
  char text[sizeof...(C)];
  constexpr TypeString(C... c) : text{static_cast<char>(c)...} {}
};

template <class R>
constexpr int kResults = requires(R r) { r.second; } ? 2 : 1;

template <class F>
struct Signature;
template <class C, class R, class... A>
struct Signature<R (C::*)(A...) const> {
  using Result = R;
  template <template <class, class...> class To>
  using Apply = To<R, A...>;
  static constexpr auto kTypes = [] {
    if constexpr (kResults<R> == 2)
      return TypeString{letter<decltype(R::value)>(), letter<typename R::Second>(), ':', letter<A>()..., 0};
    else return TypeString{letter<R>(), ':', letter<A>()..., 0};
  }();
};
template <auto F>
using SignatureOf = Signature<decltype(&decltype(F)::operator())>;

}  // namespace detail

}  // namespace amdgpu
