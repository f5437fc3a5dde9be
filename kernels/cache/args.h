// SPDX-License-Identifier: Apache-2.0
// The paged KV cache as the write kernels see it, shared by host and device. Strides count elements.
#pragma once

#include "../division/fast_div.h"

namespace rocmforge {

// Rows of a tensor [tokens, heads, row], the row contiguous.
struct HeadRows {
  void* data;
  int64_t token_stride, head_stride;
};

// Cache [blocks, heads, block_size, row] in any physical order, the row contiguous: a key, then its value, or, of one
// head, a latent and the part of its key that is rotated.
struct PagedRows {
  void* data;
  int64_t block_stride, head_stride, token_stride;
  const int64_t* slots;  // [slot_count]: block * block_size + offset; outside [0, slot_end): padding, not written
  int64_t slot_end;      // blocks * block_size, below 2^31
  int32_t slot_count;    // tokens at or past it are padding too
  FastDiv block_size;
};

struct KvWriteArgs {
  HeadRows key, value;
  PagedRows cache;
  FastDiv token_lanes;  // lanes per token: heads * row_lanes
  FastDiv row_lanes;    // lanes per row of head_size elements
  int32_t lanes;        // tokens * token_lanes, below 2^31
  int32_t head_size;
};

struct LatentKvWriteArgs {
  HeadRows latent, rope;  // of one head; rope may be of no elements
  PagedRows cache;
  FastDiv row_lanes;    // lanes per token, each with two vectors
  int32_t lanes;        // tokens * row_lanes, below 2^31
  int32_t half;         // elements between a lane's vectors
  int32_t latent_dims;  // elements of the cache's row that are the latent's, which come first
  int32_t row;          // elements of the row
};

}  // namespace rocmforge
