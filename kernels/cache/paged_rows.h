// SPDX-License-Identifier: Apache-2.0
// Where a token's rows lie, in a tensor and in the paged cache.
#pragma once

#include "../division/divide.h"
#include "args.h"

namespace rocmforge {

inline constexpr int64_t kNoSlot = -1;

RF_DEVICE int64_t find_slot(const PagedRows& cache, int32_t token) {
  return token < cache.slot_count ? cache.slots[token] : kNoSlot;
}

// The slots behind a padded batch may hold anything, so every slot is checked against the cache's size.
RF_DEVICE bool has_slot(const PagedRows& cache, int64_t slot) {
  return static_cast<uint64_t>(slot) < static_cast<uint64_t>(cache.slot_end);
}

// From the cache's first row to the slot's (head 0's); of a slot that the cache does not have, anything.
RF_DEVICE int64_t slot_offset(const PagedRows& cache, int64_t slot) {
  const Quotient block = divide(static_cast<int32_t>(slot), cache.block_size);
  return block.quotient * cache.block_stride + block.remainder * cache.token_stride;
}

template <class T>
RF_DEVICE T* token_rows(const HeadRows& rows, int32_t token) {
  return static_cast<T*>(rows.data) + token * rows.token_stride;
}

}  // namespace rocmforge
