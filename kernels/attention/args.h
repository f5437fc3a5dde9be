// SPDX-License-Identifier: Apache-2.0
// Arguments of the attention kernels, shared by host and device. Strides count elements.
#pragma once

#include "../division/fast_div.h"
#include "../target/types.h"

namespace rocmforge {

struct AttentionArgs {
  const void* query;  // [tokens, kv_heads * group, head_size]
  void* out;          // like query
  const void* cache;  // [blocks, kv_heads, block_size, 2 * head_size]: K then V
  const int32_t* block_table;  // [requests, block_table_stride]
  const int32_t* plan;         // see schedule.h
  const float* sinks;          // [kv_heads * group] logits, or null
  float* partial_out;          // [2 * workgroups * rounds, row block, head_size]
  float* partial_stats;        // [2 * workgroups * rounds, row block, 2]: maximum (log2 units) and sum
  int64_t query_token_stride, query_head_stride;
  int64_t out_token_stride, out_head_stride;
  int64_t cache_block_stride, cache_head_stride, cache_token_stride;
  int64_t block_table_stride;
  FastDiv block_size;
  FastDiv group;  // query heads per KV head
  int32_t cache_blocks;
  float scale_log2;  // softmax scale times log2(e)
  int32_t kv_heads;
  int32_t window;  // keys a query sees, itself included; 0: all
  int32_t workgroups;  // of the attention launch
  int32_t block_rows;  // packed query rows of a row block (for combine, which serves several kernels)
  int32_t combine_blocks;  // of combine's launch
};

// One class of requests (by packed rows = query tokens * group) and the kernel that serves it.
struct PlanClass {
  int32_t* plan;
  int32_t* first_block;  // scratch, one word per request
  int32_t min_rows, max_rows;  // a request belongs to the class if min_rows <= rows <= max_rows
  int32_t block_rows, tile_keys;
  int32_t workgroups;
  int32_t capacity;  // row blocks the plan can hold
  int32_t rounds;    // of heads, at most
};

struct PlanArgs {
  const int32_t* query_start;
  const int32_t* seq_lens;
  int32_t requests;
  FastDiv group;
  int32_t kv_heads, window;
  PlanClass classes[2];
};

}  // namespace rocmforge
