// SPDX-License-Identifier: Apache-2.0
// FastDiv against the division it replaces: exit status 0 if they agree.
#define RF_TARGET_CPU
#include <cstdio>
#include <initializer_list>

#include "kernels/division/divide.h"

namespace {

using rocmforge::int32_t;
using rocmforge::int64_t;
using rocmforge::uint32_t;

int bad(int32_t n, int32_t d, rocmforge::Quotient got) {
  std::printf("%d / %d is %d remainder %d, not %d remainder %d\n", n, d, n / d, n % d, got.quotient, got.remainder);
  return 1;
}

int check(int32_t n, int32_t d) {
  const auto got = rocmforge::divide(n, rocmforge::make_fast_div(static_cast<uint32_t>(d)));
  return got.quotient == n / d && got.remainder == n % d ? 0 : bad(n, d, got);
}

}  // namespace

int main() {
  constexpr int32_t kLast = 0x7fffffff;
  uint32_t state = 1;
  for (int64_t d = 1; d <= kLast; d = d < 5000 ? d + 1 : d + d / 997) {
    const int32_t by = static_cast<int32_t>(d);
    // Both sides of every kind of multiple: where a multiplier that is off by one shows first.
    for (const int64_t multiple : {int64_t{0}, int64_t{1}, int64_t{2}, (kLast / d) / 2, kLast / d - 1, kLast / d}) {
      for (int64_t n = multiple * d - 1; n <= multiple * d + 1; ++n) {
        if (n >= 0 && n <= kLast && check(static_cast<int32_t>(n), by)) return 1;
      }
    }
    for (int i = 0; i < 20; ++i) {
      state = state * 1664525u + 1013904223u;
      if (check(static_cast<int32_t>(state >> 1), by)) return 1;
    }
    if (check(kLast, by)) return 1;
  }
  return 0;
}
