// SPDX-License-Identifier: Apache-2.0
// Fixed-width names and 16-bit storage types, without libc: every target (and the host side) includes this.
#pragma once

namespace rocmforge {

using int32_t = __INT32_TYPE__;
using int64_t = __INT64_TYPE__;
using uint16_t = __UINT16_TYPE__;
using uint32_t = __UINT32_TYPE__;
using uint64_t = __UINT64_TYPE__;

// Storage only: arithmetic is done in float (see convert.h).
struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

}  // namespace rocmforge
