// SPDX-License-Identifier: Apache-2.0
// Arguments of the attention kernels, shared by host and device. Strides count elements.
#pragma once

#include "../target/types.h"

namespace rocmforge {

// n / value for 0 <= n < 2^32 / value (any n if value is a power of two), as one multiplication.
struct Divisor {
  uint64_t magic;  // ceil(2^32 / value)
  int32_t value;
  int32_t reserved;
};

constexpr Divisor make_divisor(int32_t value) {
  return {((uint64_t{1} << 32) + static_cast<uint64_t>(value) - 1) / static_cast<uint64_t>(value), value, 0};
}

struct AttentionArgs {
  const void* query;  // [tokens, kv_heads * group, head_size]
  void* out;          // like query
  const void* cache;  // [blocks, kv_heads, block_size, 2 * head_size]: K then V
  const int32_t* block_table;  // [requests, block_table_stride]
  const int32_t* query_start;  // [requests + 1]
  const int32_t* seq_lens;     // [requests], with the new tokens
  const int32_t* plan;         // see schedule.h
  const float* sinks;          // [kv_heads * group] logits, or null
  float* partial_out;          // [2 * workgroups, rows, head_size]
  float* partial_stats;        // [2 * workgroups, rows, 2]: maximum (log2 units) and sum
  int64_t query_token_stride, query_head_stride;
  int64_t out_token_stride, out_head_stride;
  int64_t cache_block_stride, cache_head_stride, cache_token_stride;
  int64_t block_table_stride;
  Divisor block_size;
  Divisor group;
  float scale_log2;  // softmax scale times log2(e)
  int32_t kv_heads;
  int32_t window;  // keys a query sees, itself included; 0: all
  int32_t rows;    // packed query rows of a row block (combine only)
};

// One class of requests (by packed rows = query tokens * group) and the kernel that serves it.
struct PlanClass {
  int32_t* plan;
  int32_t* first_block;  // scratch, one word per request
  int32_t min_rows, max_rows;  // a request belongs to the class if min_rows <= rows <= max_rows
  int32_t block_rows, tile_keys;
  int32_t workgroups;
  int32_t capacity;  // row blocks the plan can hold
};

struct PlanArgs {
  const int32_t* query_start;
  const int32_t* seq_lens;
  int32_t requests;
  int32_t group, kv_heads, window;
  PlanClass classes[2];
};

}  // namespace rocmforge
