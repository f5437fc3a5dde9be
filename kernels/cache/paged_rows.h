// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../index/divide.h"
#include "args.h"

namespace rocmforge {

// Where the rows of `token` start (head 0's), or null if the token has no slot. The slots behind a padded batch may
// hold anything, so every slot is checked against the cache's size.
template <class T>
RF_DEVICE T* paged_rows(const PagedRows& cache, int32_t token) {
  if (token >= cache.slot_count) return nullptr;
  const int64_t slot = cache.slots[token];
  if (static_cast<uint64_t>(slot) >= static_cast<uint64_t>(cache.slot_end)) return nullptr;
  const Quotient block = divide(static_cast<int32_t>(slot), cache.block_size);
  return static_cast<T*>(cache.data) + block.quotient * cache.block_stride + block.remainder * cache.token_stride;
}

template <class T>
RF_DEVICE T* token_rows(const HeadRows& rows, int32_t token) {
  return static_cast<T*>(rows.data) + token * rows.token_stride;
}

}  // namespace rocmforge
