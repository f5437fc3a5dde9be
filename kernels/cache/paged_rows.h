// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../index/divide.h"
#include "args.h"

namespace rocmforge {

// Where the row of `token` in `head` starts, or null if the token has no slot. The slots behind a padded batch may hold
// anything, so every slot is checked against the cache's size.
template <class T>
RF_DEVICE T* paged_row(const PagedRows& cache, int32_t token, int32_t head) {
  if (token >= cache.slot_count) return nullptr;
  const int64_t slot = cache.slots[token];
  if (static_cast<uint64_t>(slot) >= static_cast<uint64_t>(cache.slot_end)) return nullptr;
  const Quotient block = divide(static_cast<int32_t>(slot), cache.block_size);
  return static_cast<T*>(cache.data) + block.quotient * cache.block_stride + head * cache.head_stride +
         block.remainder * cache.token_stride;
}

template <class T>
RF_DEVICE T* head_row(const HeadRows& rows, int32_t token, int32_t head) {
  return static_cast<T*>(rows.data) + token * rows.token_stride + head * rows.head_stride;
}

}  // namespace rocmforge
