// SPDX-License-Identifier: Apache-2.0
// Arguments of the attention kernels, shared by host and device, in parts, so that a function shows what it may touch.
// Strides count elements.
#pragma once

#include "../division/fast_div.h"
#include "../target/types.h"

namespace rocmforge {

// Query heads are packed: row r of a request is head r % group of KV head h's group, of token r / group.
struct Heads {
  FastDiv group;  // query heads per KV head
  int32_t kv_heads;
};

// [tokens, kv_heads * group, key dims], and value dims. Queries may come in two parts of their dims, as the key format
// says.
struct QueryRows {
  const void* data;
  int64_t token_stride, head_stride;
  const void* rest;
  int64_t rest_token_stride, rest_head_stride;
};
struct ResultRows {
  void* data;
  int64_t token_stride, head_stride;
  int32_t dims;  // of a row; kernels for longer heads leave the rest of theirs
};

// [kv_heads * group, tokens]: the natural logarithm of each row's sum of exponentials.
struct LogSums {
  float* data;  // null: not asked for
  int64_t head_stride, token_stride;
};

// Values that do not lie with their keys: [tokens, kv_heads, value dims].
struct ValueRows {
  const void* data;
  int64_t token_stride, head_stride;
};

// [blocks, kv_heads, block_size, elements of a row], as the key format says. Keys without pages (Split) are
// [tokens, kv_heads, key dims]; then the table says where each request's first key is, and blocks are tokens.
struct KeyPages {
  const void* data;
  const int32_t* block_table;  // [requests, table_stride]
  int64_t block_stride, head_stride, token_stride, table_stride;
  FastDiv block_size;
  int32_t blocks;
  int32_t dims;      // of a key, and of a value, where the format leaves them to the launch
  ValueRows values;  // of formats with values apart
};

struct Mask {
  int32_t window;        // keys a query sees on either side that it sees, itself included; 0: all
  const int32_t* spans;  // [tokens, 2]: the first and the last key that a token sees, where the plan has listed them
};

struct SoftmaxArgs {
  const float* sinks;  // [kv_heads * group] logits, or null
  float scale_log2;    // softmax scale times log2(e)
  // Of score functions that ask for them.
  float cap_log2;      // soft cap times log2(e)
  float cap_power;     // 2 log2(e) times softmax scale, by the soft cap
  const float* slopes;  // [kv_heads * group]: what a head's scores gain from key to key
  float per_scale;     // 1 by softmax scale
};

// Of one launch, and what launches hand to each other.
struct Work {
  const int32_t* plan;    // see schedule/schedule.h
  float* partial_out;     // [2 * workgroups * rounds, row block, value dims]
  float* partial_stats;   // [2 * workgroups * rounds, row block, 2]: maximum (log2 units) and sum
  int32_t workgroups;     // of the attention launch
  int32_t fixed_parts;    // whether items are cut as PlanClass::most_parts says
  int32_t block_rows;     // packed query rows of a row block (for combine, which serves several kernels)
  int32_t combine_blocks;  // of combine's launch
};

struct AttentionArgs {
  Heads heads;
  QueryRows query;
  ResultRows out;
  LogSums lse;
  KeyPages keys;
  Mask mask;
  SoftmaxArgs softmax;
  Work work;
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
  int32_t most_parts;  // 0, or: items are not cut anywhere, but into so many parts at most, after their length alone,
  int32_t least_part;  // each of so many tiles at least
};

// Tokens within a range of their request's see all of it, beside what they see anyway.
struct Ranges {
  const int32_t* data;  // [requests, count, 2]: first and last position of each; an empty one is 0, 0
  int32_t count;
  int32_t request_stride;
  int32_t clamped;  // whether the window ends what they see to the left
};

struct PlanArgs {
  const int32_t* query_start;
  const int32_t* seq_lens;
  int32_t requests;
  Heads heads;
  Mask mask;
  int32_t causal;  // whether tokens see no keys after their own: of all requests,
  const int32_t* causal_requests;  // or, if not null, of each: [requests]
  int32_t* spans;  // null, or where Mask::spans are listed
  Ranges ranges;
  PlanClass classes[2];
};

}  // namespace rocmforge
