// SPDX-License-Identifier: Apache-2.0
// What atomic instructions make of the value in memory and the lane's.
#pragma once

#include <cmath>
#include <cstdint>

#include "half.h"

namespace amdgpu::atomic {

struct Add {
  template <class T>
  static T apply(T old, T x) {
    return old + x;
  }
};
struct Subtract {
  template <class T>
  static T apply(T old, T x) {
    return old - x;
  }
};
struct ReverseSubtract {
  template <class T>
  static T apply(T old, T x) {
    return x - old;
  }
};
// Of floats, the one that is a number.
struct Minimum {
  template <class T>
  static T apply(T old, T x) {
    if constexpr (std::is_floating_point_v<T>) return std::fmin(old, x);
    else return x < old ? x : old;
  }
};
struct Maximum {
  template <class T>
  static T apply(T old, T x) {
    if constexpr (std::is_floating_point_v<T>) return std::fmax(old, x);
    else return x > old ? x : old;
  }
};
struct And {
  template <class T>
  static T apply(T old, T x) {
    return old & x;
  }
};
struct Or {
  template <class T>
  static T apply(T old, T x) {
    return old | x;
  }
};
struct Xor {
  template <class T>
  static T apply(T old, T x) {
    return old ^ x;
  }
};
struct Exchange {
  template <class T>
  static T apply(T, T x) {
    return x;
  }
};
// Counts up to x and begins again.
struct Increment {
  template <class T>
  static T apply(T old, T x) {
    return old >= x ? T(0) : old + 1;
  }
};
struct Decrement {
  template <class T>
  static T apply(T old, T x) {
    return old == 0 || old > x ? x : old - 1;
  }
};
struct AddHalves {
  static uint32_t apply(uint32_t old, uint32_t x) {
    const auto sum = [&](int at) {
      const Half a{static_cast<uint16_t>(old >> at)}, b{static_cast<uint16_t>(x >> at)};
      return uint32_t{to_half(to_float(a) + to_float(b)).bits} << at;
    };
    return sum(0) | sum(16);
  }
};
struct AddBrainHalves {
  static uint32_t apply(uint32_t old, uint32_t x) {
    const auto sum = [&](int at) {
      return float_to_bf16(bf16_to_float(old >> at & 0xffffu) + bf16_to_float(x >> at & 0xffffu)) << at;
    };
    return sum(0) | sum(16);
  }
};

}  // namespace amdgpu::atomic
