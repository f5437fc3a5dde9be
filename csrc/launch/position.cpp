// SPDX-License-Identifier: Apache-2.0
#include "launch/position.h"

#include <algorithm>
#include <bit>

#include "launch/lanes.h"

namespace rocmforge {
namespace {

constexpr int kMaxRowLanes = 32;  // of the smallest wave: lanes of one row exchange their sums
constexpr int kLanesPerUnit = 512;  // on one compute unit at once, to hide the latency of memory

// Which of the kernels without and with sections of positions.
bool has_sections(const RopeView& table) {
  return table.mode == PositionMode::kSections || table.mode == PositionMode::kInterleaved;
}

int parts_of(const RopeView& table) { return table.mode == PositionMode::kAxes ? 2 : 1; }

void align_table(const RopeView& table, const HeadShape& shape, Alignment& alignment) {
  // A lane reads cos and sin in runs of half a vector's elements: half as many bytes, or as many where they are float.
  const int64_t size = table.float_table ? 4 : 2;
  const int64_t scale = table.float_table ? 1 : 2;
  alignment.bytes(static_cast<int64_t>(table.cos) * scale).bytes(static_cast<int64_t>(table.sin) * scale);
  alignment.bytes(table.cos_stride * size * scale).bytes(table.sin_stride * size * scale);
  alignment.elements(shape.rotary_dim / 2);
}

RopeTable table_args(const RopeView& view) {
  return {.cos = reinterpret_cast<const void*>(view.cos),
          .sin = reinterpret_cast<const void*>(view.sin),
          .cos_stride = view.cos_stride,
          .sin_stride = view.sin_stride,
          .positions = reinterpret_cast<const int64_t*>(view.positions),
          .axis_stride = view.axis_stride,
          .sections = {static_cast<int32_t>(view.sections[0]), static_cast<int32_t>(view.sections[1])},
          .mode = view.mode,
          .float_table = view.float_table};
}

RowShape shape_args(const HeadShape& shape, int parts, int vector) {
  const int64_t part_items = shape.rotary_dim / (2 * vector);
  const int64_t plain = shape.head_size - parts * shape.rotary_dim;
  const int64_t rotary_items = parts * part_items;
  return {.head_size = static_cast<int32_t>(shape.head_size),
          .rotary_dim = static_cast<int32_t>(shape.rotary_dim),
          .parts = parts,
          .interleaved = shape.interleaved,
          .part_items = make_fast_div(static_cast<uint32_t>(part_items)),
          .rotary_items = static_cast<int32_t>(rotary_items),
          .items = static_cast<int32_t>(rotary_items + ceil_quotient(plain, 2 * vector))};
}

// Lanes of a row of so many items, as a power of two.
int lane_shift(int64_t items) {
  const auto lanes = std::bit_ceil(static_cast<uint64_t>(std::min<int64_t>(items, kMaxRowLanes)));
  return std::countr_zero(lanes);
}

// How many heads a lane does, at most `most`: fewer where that is needed to give every compute unit work. `heads` and
// `row_lanes` are of one token.
int group_heads(const Device& device, int most, int64_t tokens, int64_t heads, int64_t row_lanes) {
  const int64_t wanted = int64_t{device.info().compute_units} * kLanesPerUnit;
  int size = most;
  while (size > 1 && tokens * ceil_quotient(heads, size) * row_lanes < wanted) size /= 2;
  return size;
}

}  // namespace

void launch_rotary(OpDevice& device, Stream stream, const RotaryCall& call) {
  const int64_t heads = call.query_heads + call.key_heads;
  if (call.tokens == 0 || heads == 0) return;
  const bool in_place = call.query.data == call.query_out.data;
  Alignment alignment(call.element);
  align_table(call.table, call.shape, alignment);
  if (!in_place) alignment.elements(call.shape.head_size);
  for (const RowsView* rows : {&call.query, &call.query_out, &call.key, &call.key_out}) rows->align(alignment);
  alignment.elements(call.query_batch_stride).elements(call.query_out_batch_stride);
  const Width width = alignment.widest();
  const RowShape shape = shape_args(call.shape, parts_of(call.table), vector_elements(call.element, width));
  const int32_t row_items = in_place ? shape.rotary_items : shape.items;
  const int shift = lane_shift(row_items);
  const int size = group_heads(device, kRotaryHeads, call.tokens, heads, int64_t{1} << shift);
  const int64_t query_groups = ceil_quotient(call.query_heads, size);
  const int64_t token_lanes = (query_groups + ceil_quotient(call.key_heads, size)) << shift;
  const RotaryArgs args{.table = table_args(call.table),
                        .shape = shape,
                        .query = call.query.args(),
                        .query_out = call.query_out.args(),
                        .key = call.key.args(),
                        .key_out = call.key_out.args(),
                        .query_batch_stride = call.query_batch_stride,
                        .query_out_batch_stride = call.query_out_batch_stride,
                        .sequence = make_fast_div(static_cast<uint32_t>(call.sequence)),
                        .token_lanes = make_fast_div(static_cast<uint32_t>(token_lanes)),
                        .lanes = checked_lanes("rotary", call.tokens * token_lanes),
                        .query_heads = static_cast<int32_t>(call.query_heads),
                        .key_heads = static_cast<int32_t>(call.key_heads),
                        .group_heads = size,
                        .query_groups = static_cast<int32_t>(query_groups),
                        .lane_shift = shift,
                        .row_items = row_items};
  Kernel& kernel = device.rotary[has_sections(call.table)].get(width, call.element);
  kernel.launch(grid_of(kernel, args.lanes), stream, args);
}

void launch_rotary_kv_write(OpDevice& device, Stream stream, const RotaryKvWriteCall& call) {
  if (call.tokens == 0 || call.query_heads + call.kv_heads == 0) return;
  const bool norm = call.query_weight != 0;
  Alignment alignment(call.element);
  align_table(call.table, call.shape, alignment);
  alignment.elements(call.shape.head_size).address(call.query_weight).address(call.key_weight);
  for (const RowsView* rows : {&call.query, &call.query_out, &call.key, &call.value}) rows->align(alignment);
  call.cache.align(alignment);
  const Width width = alignment.widest();
  const int vector = vector_elements(call.element, width);
  const RowShape shape = shape_args(call.shape, parts_of(call.table), vector);
  const bool skips_plain = !norm && call.query.data == call.query_out.data;
  const int32_t query_items = skips_plain ? shape.rotary_items : shape.items;
  const int kv_shift = lane_shift(std::max<int64_t>(shape.items, ceil_quotient(call.shape.head_size, 2 * vector)));
  const int query_shift = norm ? kv_shift : lane_shift(query_items);
  const int size = group_heads(device, norm ? kNormWriteHeads : kWriteHeads, call.tokens,
                               call.query_heads + 2 * call.kv_heads, int64_t{1} << kv_shift);
  const int64_t query_groups = ceil_quotient(call.query_heads, size);
  const int64_t kv_groups = ceil_quotient(call.kv_heads, size);
  const int64_t token_lanes = (query_groups << query_shift) + (2 * kv_groups << kv_shift);
  const RotaryKvWriteArgs args{.table = table_args(call.table),
                               .shape = shape,
                               .query = call.query.args(),
                               .query_out = call.query_out.args(),
                               .key = call.key.args(),
                               .value = call.value.args(),
                               .cache = call.cache.args(),
                               .query_weight = reinterpret_cast<const void*>(call.query_weight),
                               .key_weight = reinterpret_cast<const void*>(call.key_weight),
                               .token_lanes = make_fast_div(static_cast<uint32_t>(token_lanes)),
                               .epsilon = static_cast<float>(call.epsilon),
                               .inverse_head_size = 1.0f / static_cast<float>(call.shape.head_size),
                               .lanes = checked_lanes("rotary_kv_write", call.tokens * token_lanes),
                               .query_heads = static_cast<int32_t>(call.query_heads),
                               .kv_heads = static_cast<int32_t>(call.kv_heads),
                               .group_heads = size,
                               .query_groups = static_cast<int32_t>(query_groups),
                               .kv_groups = static_cast<int32_t>(kv_groups),
                               .query_shift = query_shift,
                               .kv_shift = kv_shift,
                               .query_items = query_items};
  OpKernels* kernels = norm ? device.norm_rotary_kv_write : device.rotary_kv_write;
  Kernel& kernel = kernels[has_sections(call.table)].get(width, call.element);
  kernel.launch(grid_of(kernel, args.lanes), stream, args);
}

void launch_rotary_latent_kv_write(OpDevice& device, Stream stream, const RotaryLatentKvWriteCall& call) {
  if (call.tokens == 0) return;
  Alignment alignment(call.element);
  align_table(call.table, call.shape, alignment);
  alignment.elements(call.shape.head_size).elements(call.latent_dims);
  for (const RowsView* rows : {&call.query, &call.key, &call.latent}) rows->align(alignment);
  call.cache.align(alignment);
  const Width width = alignment.widest();
  const int vector = vector_elements(call.element, width);
  const RowShape shape = shape_args(call.shape, parts_of(call.table), vector);
  const int64_t latent_items = ceil_quotient(call.latent_dims, 2 * vector);
  const int query_shift = lane_shift(shape.rotary_items);
  const int key_shift = lane_shift(shape.items);
  const int latent_shift = lane_shift(latent_items);
  const int size = group_heads(device, kWriteHeads, call.tokens, call.query_heads, int64_t{1} << query_shift);
  const int64_t query_groups = ceil_quotient(call.query_heads, size);
  const int64_t token_lanes = (query_groups << query_shift) + (1 << key_shift) + (1 << latent_shift);
  const RotaryLatentKvWriteArgs args{.table = table_args(call.table),
                                     .shape = shape,
                                     .query = call.query.args(),
                                     .key = call.key.args(),
                                     .latent = call.latent.args(),
                                     .cache = call.cache.args(),
                                     .token_lanes = make_fast_div(static_cast<uint32_t>(token_lanes)),
                                     .lanes = checked_lanes("rotary_latent_kv_write", call.tokens * token_lanes),
                                     .query_heads = static_cast<int32_t>(call.query_heads),
                                     .group_heads = size,
                                     .query_groups = static_cast<int32_t>(query_groups),
                                     .query_shift = query_shift,
                                     .key_shift = key_shift,
                                     .latent_shift = latent_shift,
                                     .latent_dims = static_cast<int32_t>(call.latent_dims),
                                     .latent_items = static_cast<int32_t>(latent_items)};
  Kernel& kernel = device.rotary_latent_kv_write.get(width, call.element);
  kernel.launch(grid_of(kernel, args.lanes), stream, args);
}

}  // namespace rocmforge
