// SPDX-License-Identifier: Apache-2.0
// Tiles in shared memory in rows as they lie in the cache, padded so that lanes that read different rows at once hit
// different banks.
#pragma once

namespace rocmforge {

// Rows are kKeyRow and kValueRow elements long. There are none of values that lie in their keys.
template <class T, int kBuffers, int kRows, int kKeyRow, int kValueRow>
struct alignas(16) PaddedRows {
  T keys[kBuffers][kRows][kKeyRow];
  T values[kBuffers][kRows][kValueRow];
};
template <class T, int kBuffers, int kRows, int kKeyRow>
struct alignas(16) PaddedRows<T, kBuffers, kRows, kKeyRow, 0> {
  T keys[kBuffers][kRows][kKeyRow];
};

}  // namespace rocmforge
