// SPDX-License-Identifier: Apache-2.0
// Arguments of the position kernels, shared by host and device. Strides count elements.
#pragma once

#include "../cache/args.h"

namespace rocmforge {

// Which row of the cos/sin table a pair of elements takes.
enum class PositionMode : int32_t {
  kOne,          // positions[token]
  kSections,     // positions[axis][token], the axis by the pair: t, then h, then w (M-RoPE)
  kInterleaved,  // as kSections, axes taken in turn: t h w t h w ... t t
  kAxes,         // positions[axis][token], the axis by the part of the head (ChatGLM-6B's two-dimensional positions)
  kPerToken,     // the token's place in its sequence: cos and sin are given per token
};

struct RopeTable {
  const void* cos;  // [rows, rotary_dim / 2]
  const void* sin;
  int64_t cos_stride, sin_stride;
  const int64_t* positions;  // [tokens] or [axes, tokens], each below the table's rows; null with kPerToken
  int64_t axis_stride;
  int32_t sections[2];  // kSections: where h and w begin; kInterleaved: three times their pair counts
  PositionMode mode;
  int32_t float_table;  // the table is float, else of the rows' type
};

// How a head's row is cut. An item is what one lane does at a time: two vectors of N elements, either N rotated pairs
// or 2N elements that only move.
struct RowShape {
  int32_t head_size;
  int32_t rotary_dim;    // per part
  int32_t parts;         // a head's first parts * rotary_dim elements are rotated, each part on its own (kAxes: 2)
  int32_t interleaved;   // pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2)
  FastDiv part_items;    // items of a part: rotary_dim / (2 N)
  int32_t rotary_items;  // parts * part_items
  int32_t items;         // with the elements behind them, which only move
};

// A lane holds the same elements of so many heads at once: the loads are in flight together, and cos and sin are looked
// up once for all of them. Beside the KV write two are faster by 1 to 3 % than four, but 4 to 13 % slower with norms.
inline constexpr int kRotaryHeads = 4, kWriteHeads = 2, kNormWriteHeads = 4;

struct RotaryArgs {
  RopeTable table;
  RowShape shape;
  HeadRows query, query_out, key, key_out;
  int64_t query_batch_stride, query_out_batch_stride;  // between sequences of the query; a key has one sequence
  FastDiv sequence;  // tokens of a sequence
  FastDiv token_lanes;  // lanes per token: groups of query and of key heads, times lanes of a row
  int32_t lanes;  // tokens * token_lanes, below 2^31
  int32_t query_heads, key_heads;
  int32_t group_heads;  // heads that a lane does one after another, at most kRotaryHeads
  int32_t query_groups;  // ceil(query_heads / group_heads)
  int32_t lane_shift;  // a row has 2^lane_shift lanes
  int32_t row_items;  // shape.rotary_items in place, shape.items to another tensor
};

struct RotaryKvWriteArgs {
  RopeTable table;
  RowShape shape;
  HeadRows query, query_out, key, value;
  PagedRows cache;
  const void* query_weight;  // [head_size] of the rows' type: RMS norm of every head before the rotation, or null
  const void* key_weight;
  FastDiv token_lanes;  // (query_groups << query_shift) + (2 * kv_groups << kv_shift)
  float epsilon;
  float inverse_head_size;
  int32_t lanes;  // tokens * token_lanes, below 2^31
  int32_t query_heads, kv_heads;
  int32_t group_heads;  // as in RotaryArgs, at most kWriteHeads, kNormWriteHeads
  int32_t query_groups, kv_groups;  // ceil(heads / group_heads)
  int32_t query_shift, kv_shift;  // lanes per row; equal with the norm
  int32_t query_items;  // shape.rotary_items in place without the norm, else shape.items
};

struct RotaryLatentKvWriteArgs {
  RopeTable table;
  RowShape shape;  // of the rows of queries and key
  HeadRows query, key, latent;  // key and latent of one head
  PagedRows cache;
  FastDiv token_lanes;  // (query_groups << query_shift) + (1 << key_shift) + (1 << latent_shift)
  int32_t lanes;  // tokens * token_lanes, below 2^31
  int32_t query_heads;
  int32_t group_heads;  // as in RotaryArgs, at most kWriteHeads
  int32_t query_groups;  // ceil(query_heads / group_heads)
  int32_t query_shift, key_shift, latent_shift;  // lanes per row
  int32_t latent_dims, latent_items;
};

static_assert(sizeof(RotaryKvWriteArgs) <= 512 && sizeof(RotaryLatentKvWriteArgs) <= 512);

}  // namespace rocmforge
