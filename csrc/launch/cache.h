// SPDX-License-Identifier: Apache-2.0
// The writes to the paged cache. Strides count elements.
#pragma once

#include <cstdint>

#include "kernels/cache/args.h"
#include "launch/op_kernels.h"

namespace rocmforge {

// A tensor [tokens, heads, row] with contiguous rows.
struct RowsView {
  uintptr_t data = 0;
  int64_t token_stride = 0, head_stride = 0;

  HeadRows args() const { return {reinterpret_cast<void*>(data), token_stride, head_stride}; }
  void align(Alignment& alignment) const { alignment.address(data).elements(token_stride).elements(head_stride); }
};

// A cache [blocks, heads, block_size, row] and the slots of the tokens to write.
struct CacheView {
  uintptr_t data = 0;
  int64_t block_stride = 0, head_stride = 0, token_stride = 0;
  int64_t blocks = 0, block_size = 0;
  uintptr_t slots = 0;
  int64_t slot_count = 0;

  PagedRows args() const;
  void align(Alignment& alignment) const {
    alignment.address(data).elements(block_stride).elements(head_stride).elements(token_stride);
  }
};

struct KvWriteCall {
  Element element;
  int64_t tokens, heads, head_size;
  RowsView key, value;
  CacheView cache;
};

void launch_kv_write(OpDevice& device, Stream stream, const KvWriteCall& call);

// Rows of one head: a latent, and behind it in the cache the part of its key that is rotated, if rope_dims is not 0.
struct LatentKvWriteCall {
  Element element;
  int64_t tokens, latent_dims, rope_dims;
  RowsView latent, rope;
  CacheView cache;
};

void launch_latent_kv_write(OpDevice& device, Stream stream, const LatentKvWriteCall& call);

}  // namespace rocmforge
