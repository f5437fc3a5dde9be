// SPDX-License-Identifier: Apache-2.0
// The types of one lane's values that handlers are written in, beside those of C++: they say how operands are read.
#pragma once

#include <cstdint>
#include <type_traits>

#include "half.h"

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

// An operand of the mixed-precision instructions: the register is a float, or one of its halves is a half.
struct Mixed {
  float value;
};

// A register of small integers of dot products; a flag of the operand says whether they have signs.
struct Integers {
  uint32_t word, has_signs;
};

// A value and a bit of the mask that is the second result: carries, and the like.
template <class T>
struct WithMask {
  T value;
  bool second;
};

// Two results of one type.
template <class T>
struct Both {
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

template <class T>
constexpr bool kPacked = std::is_same_v<T, Pair> || std::is_same_v<T, HalfPair> || std::is_same_v<T, FloatPair>;

// The unsigned integer of the size of T.
template <class T>
using BitsOf = std::conditional_t<
    sizeof(T) == 1, uint8_t,
    std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>>;

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
      return TypeString{letter<decltype(R::value)>(), letter<decltype(R::second)>(), ':', letter<A>()..., 0};
    else return TypeString{letter<R>(), ':', letter<A>()..., 0};
  }();
};
template <auto F>
using SignatureOf = Signature<decltype(&decltype(F)::operator())>;

}  // namespace detail

}  // namespace amdgpu
