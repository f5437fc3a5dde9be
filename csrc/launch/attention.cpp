// SPDX-License-Identifier: Apache-2.0
#include "launch/attention.h"

#include <algorithm>
#include <limits>

#include "kernels/attention/schedule/words.h"
#include "launch/lanes.h"

namespace rocmforge {
namespace {

constexpr const char* kDecodeNames[3] = {"attention_decode1", "attention_decode2", "attention_decode4"};

// Name of a kernel of this layer, such as attention_prefill_bf16_d128.
std::string variant_name(const AttentionLayer& layer, const std::string& kernel) {
  std::string name =
      kernel + "_" + kElementNames[static_cast<int>(layer.element)] + "_d" + std::to_string(layer.head_size);
  return layer.core.empty() ? name : name + "_" + layer.core;
}

// It joins the results of all problems with as many dims, whatever core made them.
std::string combine_name(const AttentionLayer& layer) {
  return std::string("attention_combine_") + kElementNames[static_cast<int>(layer.element)] + "_d" +
         std::to_string(layer.head_size);
}

int64_t round_up(int64_t words) { return ceil_quotient(words, 4) * 4; }  // row blocks are read 16 bytes at a time

}  // namespace

int decode_variant(const int (&variant_rows)[3], int group, int64_t decode_query_len) {
  for (int64_t tokens : {decode_query_len, int64_t{1}}) {
    for (int i = 0; i < 3; ++i)
      if (variant_rows[i] >= tokens * group) return i;
  }
  return -1;
}

int64_t row_block_bound(const BatchBounds& bounds, int group, int block_rows) {
  // Each request may leave its last row block partly empty.
  return std::min(bounds.requests, bounds.tokens) + bounds.tokens * group / block_rows;
}

AttentionPlanner::AttentionPlanner(Device& device, AttentionLayer layer, const BatchBounds& bounds)
    : device_(device),
      layer_(std::move(layer)),
      bounds_(bounds),
      plan_(&device.kernel("attention_plan")),
      combine_(&device.kernel(combine_name(layer_))) {
  Kernel* decoders[3] = {};
  int rows[3] = {};
  for (int i = 0; i < 3; ++i) {
    const std::string name = variant_name(layer_, kDecodeNames[i]);
    if (!device.has_kernel(name)) continue;
    decoders[i] = &device.kernel(name);
    rows[i] = decoders[i]->config().rows;
  }
  const int variant = decode_variant(rows, layer_.group, bounds.decode_query_len);
  if (variant >= 0) set_part(decode_, *decoders[variant], 1, rows[variant], std::min(bounds.requests, bounds.tokens));
  Kernel& prefill = device.kernel(variant_name(layer_, "attention_prefill"));
  set_part(prefill_, prefill, decode_.max_rows + 1, std::numeric_limits<int>::max(),
           row_block_bound(bounds, layer_.group, prefill.config().rows));
}

void AttentionPlanner::set_part(AttentionPart& part, Kernel& kernel, int min_rows, int max_rows, int64_t capacity) {
  part.attention = &kernel;
  part.min_rows = min_rows;
  part.max_rows = max_rows;
  part.block_rows = kernel.config().rows;
  part.workgroups = std::max(1, device_.info().compute_units * kernel.config().blocks_per_unit);
  part.capacity = static_cast<int>(capacity);
  part.plan_offset = plan_words_;
  plan_words_ += round_up(plan_size(part.workgroups, part.capacity));
  part.scratch_offset = plan_words_;
  plan_words_ += round_up(bounds_.requests);
  part.rounds = kernel.config().rounds;
  const int64_t partials = int64_t{2} * part.workgroups * part.rounds;
  workspace_rows_ = std::max(workspace_rows_, partials * part.block_rows);
}

void AttentionPlanner::plan(Stream stream, uintptr_t query_start, uintptr_t seq_lens, int64_t requests, int64_t tokens,
                            int64_t max_query_len) {
  // That a request can be; not even the longest where tokens count padding.
  const int64_t shortest = std::min(tokens - (requests - 1) * max_query_len, max_query_len);
  prefill_only_ = shortest * layer_.group > decode_.max_rows;
  PlanArgs args{.query_start = reinterpret_cast<const int32_t*>(query_start),
                .seq_lens = reinterpret_cast<const int32_t*>(seq_lens),
                .requests = static_cast<int32_t>(requests),
                .heads = {make_fast_div(static_cast<uint32_t>(layer_.group)), layer_.kv_heads},
                .mask = {layer_.window},
                .classes = {}};
  int classes = 0;
  for (const AttentionPart* part : {&decode_, &prefill_}) {
    if (!part->attention) continue;
    const bool decode = part == &decode_;
    args.classes[classes++] = {.plan = buffers_.plan + part->plan_offset,
                               .first_block = buffers_.plan + part->scratch_offset,
                               .min_rows = prefill_only_ && !decode ? 1 : part->min_rows,
                               .max_rows = prefill_only_ && decode ? 0 : part->max_rows,
                               .block_rows = part->block_rows,
                               .tile_keys = part->attention->config().keys,
                               .workgroups = part->workgroups,
                               .capacity = part->capacity,
                               .rounds = part->rounds};
  }
  plan_->launch({classes, 1, 1}, stream, args);
}

void AttentionPlanner::run(Stream stream, int64_t max_query_len, AttentionArgs args) {
  args.work.partial_out = buffers_.workspace;
  args.work.partial_stats = args.work.partial_out + workspace_rows_ * layer_.head_size;
  for (const AttentionPart* part : {&decode_, &prefill_}) {
    if (!part->attention || max_query_len * layer_.group < part->min_rows) continue;
    if (part == &decode_ && prefill_only_ && !device_.capturing(stream)) continue;
    args.work.plan = buffers_.plan + part->plan_offset;
    args.work.workgroups = part->workgroups;
    args.work.block_rows = part->block_rows;
    part->attention->launch({part->workgroups, 1, 1}, stream, args);
    // Rows that a plan can have joined.
    const int64_t rows = int64_t{part->workgroups - 1} * part->rounds * part->block_rows;
    const int64_t blocks = device_.info().compute_units * combine_->config().blocks_per_unit;
    args.work.combine_blocks = static_cast<int32_t>(std::min(rows, blocks));
    if (args.work.combine_blocks > 0) combine_->launch({args.work.combine_blocks, 1, 1}, stream, args);
  }
}

}  // namespace rocmforge
