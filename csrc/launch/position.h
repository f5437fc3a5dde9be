// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, by itself and with the norm before and the cache write behind it. Strides count elements.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/position/args.h"
#include "launch/cache.h"

namespace rocmforge {

// cos and sin [rows, rotary_dim / 2], and the rows that tokens take.
struct RopeView {
  uintptr_t cos = 0, sin = 0;
  int64_t cos_stride = 0, sin_stride = 0;
  bool float_table = false;
  uintptr_t positions = 0;
  int64_t axis_stride = 0;
  std::array<int64_t, 2> sections{};
  PositionMode mode = PositionMode::kOne;
};

struct HeadShape {
  int64_t head_size = 0, rotary_dim = 0;
  bool interleaved = false;
};

struct RotaryCall {
  Element element;
  int64_t tokens, query_heads, key_heads;  // key_heads 0: no key
  HeadShape shape;
  RopeView table;
  RowsView query, query_out, key, key_out;
  int64_t sequence;  // tokens of one sequence; `tokens` is a multiple, and more than one sequence has no key
  int64_t query_batch_stride, query_out_batch_stride;
};

void launch_rotary(OpDevice& device, Stream stream, const RotaryCall& call);

struct RotaryKvWriteCall {
  Element element;
  int64_t tokens, query_heads, kv_heads;
  HeadShape shape;
  RopeView table;
  RowsView query, query_out, key, value;
  CacheView cache;
  uintptr_t query_weight, key_weight;  // both or neither
  double epsilon;
};

void launch_rotary_kv_write(OpDevice& device, Stream stream, const RotaryKvWriteCall& call);

// Queries and key in place; the cache's rows are latent_dims elements of a latent, then the rotated key.
struct RotaryLatentKvWriteCall {
  Element element;
  int64_t tokens, query_heads, latent_dims;
  HeadShape shape;  // of queries and key
  RopeView table;   // of mode kOne
  RowsView query, key, latent;
  CacheView cache;
};

void launch_rotary_latent_kv_write(OpDevice& device, Stream stream, const RotaryLatentKvWriteCall& call);

}  // namespace rocmforge
