// SPDX-License-Identifier: Apache-2.0
#include "launch/attention.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "kernels/attention/schedule/words.h"
#include "launch/lanes.h"

namespace rocmforge {
namespace {

// Parts of items where these are fixed: of all heads of a request so many that it fills a GPU alone, about, if they are
// long enough. Each costs about 5 us (H200); where an engine may have requests enough to fill the GPU, that counts more
// than that one alone should.
constexpr int kRequestParts = 192;
constexpr int kPartKeys = 512, kPartKeysOfMany = 1024;

int64_t round_up(int64_t words) { return ceil_quotient(words, 4) * 4; }  // row blocks are read 16 bytes at a time

}  // namespace

DecodeKernels::DecodeKernels(Device& device, const Problem& problem) {
  constexpr AttentionKernel kAll[kCount] = {AttentionKernel::kDecode1, AttentionKernel::kDecode2,
                                            AttentionKernel::kDecode4};
  for (int i = 0; i < kCount; ++i) {
    const std::string name = kernel_name(problem, kAll[i]);
    if (device.has_kernel(name)) kernels[i] = &device.kernel(name);
  }
}

Kernel* DecodeKernels::smallest(int group, int64_t tokens) const {
  for (int64_t held : {tokens, int64_t{1}}) {
    for (Kernel* kernel : kernels)
      if (kernel && kernel->config().rows >= held * group) return kernel;
  }
  return nullptr;
}

int DecodeKernels::most_rows() const {
  int most = 0;
  for (const Kernel* kernel : kernels) most = std::max(most, kernel ? kernel->config().rows : 0);
  return most;
}

int64_t row_block_bound(const BatchBounds& bounds, int group, int block_rows) {
  // Each request may leave its last row block partly empty.
  return std::min(bounds.requests, bounds.tokens) + bounds.tokens * group / block_rows;
}

AttentionPlanner::AttentionPlanner(Device& device, Problem problem, const BatchBounds& bounds)
    : device_(device),
      problem_(std::move(problem)),
      bounds_(bounds),
      plan_(&device.kernel(kernel_name(problem_, AttentionKernel::kPlan))),
      combine_(&device.kernel(kernel_name(problem_, AttentionKernel::kCombine))) {
  if (Kernel* decode = DecodeKernels(device, problem_).smallest(problem_.group, bounds.decode_query_len)) {
    if (bounds.invariant) {
      const bool many = bounds.requests * problem_.kv_heads >= device.info().compute_units;
      decode_.most_parts = std::max(2, kRequestParts / problem_.kv_heads);
      decode_.least_part = std::max(1, (many ? kPartKeysOfMany : kPartKeys) / decode->config().keys);
    }
    const int64_t requests = std::min(bounds.requests, bounds.tokens);
    set_class(decode_, *decode, 1, decode->config().rows, requests * std::max(decode_.most_parts, 1));
  }
  Kernel& prefill = device.kernel(kernel_name(problem_, AttentionKernel::kPrefill));
  if (bounds.invariant) prefill_.most_parts = 1;
  set_class(prefill_, prefill, decode_.max_rows + 1, std::numeric_limits<int>::max(),
            row_block_bound(bounds, problem_.group, prefill.config().rows));
}

void AttentionPlanner::set_class(RequestClass& requests, Kernel& kernel, int min_rows, int max_rows, int64_t capacity) {
  requests.attention = &kernel;
  requests.min_rows = min_rows;
  requests.max_rows = max_rows;
  requests.block_rows = kernel.config().rows;
  requests.workgroups = std::max(1, device_.info().compute_units * kernel.config().blocks_per_unit);
  requests.capacity = static_cast<int>(capacity);
  requests.plan_offset = plan_words_;
  plan_words_ += round_up(plan_size(requests.workgroups, requests.capacity));
  if (requests.most_parts > 0) plan_words_ += round_up(kRecordWords * bounds_.requests);
  requests.scratch_offset = plan_words_;
  plan_words_ += round_up(bounds_.requests);
  requests.rounds = kernel.config().rounds;
  const int64_t partials = requests.most_parts > 1    ? int64_t{requests.capacity} * problem_.kv_heads
                           : requests.most_parts == 1 ? 0
                                                      : int64_t{2} * requests.workgroups * requests.rounds;
  workspace_rows_ = std::max(workspace_rows_, partials * requests.block_rows);
}

int AttentionPlanner::row_elements() const {
  // Kernels for narrower heads than theirs do not know.
  const int known = prefill_.attention->config().row_elements;
  if (known > 0) return known;
  return problem_.op == AttentionOp::kVarlen ? problem_.key_dims : problem_.key_dims + problem_.value_dims;
}

bool AttentionPlanner::only_long(const Batch& batch) const {
  if (bounds_.invariant) return false;
  // The shortest that a request can be; not even the longest where tokens count padding.
  const int64_t shortest = std::min(batch.tokens - (batch.requests - 1) * batch.max_query_len, batch.max_query_len);
  return shortest * problem_.group > decode_.max_rows;
}

void AttentionPlanner::plan(Stream stream, const BatchData& data, const Batch& batch) {
  PlanArgs args{.query_start = data.query_start,
                .seq_lens = data.seq_lens,
                .requests = static_cast<int32_t>(batch.requests),
                .heads = {make_fast_div(static_cast<uint32_t>(problem_.group)), problem_.kv_heads},
                .mask = {problem_.window, nullptr},
                .causal = batch.causal == Causal::kYes,
                .causal_requests = data.causal,
                .spans = buffers_.spans,
                .ranges = data.ranges,
                .classes = {}};
  const bool to_prefill = only_long(batch);
  int classes = 0;
  for (const RequestClass* requests : {&decode_, &prefill_}) {
    if (!requests->attention) continue;
    const bool decode = requests == &decode_;
    args.classes[classes++] = {.plan = buffers_.plan + requests->plan_offset,
                               .first_block = buffers_.plan + requests->scratch_offset,
                               .min_rows = to_prefill && !decode ? 1 : requests->min_rows,
                               .max_rows = to_prefill && decode ? 0 : requests->max_rows,
                               .block_rows = requests->block_rows,
                               .tile_keys = requests->attention->config().keys,
                               .workgroups = requests->workgroups,
                               .capacity = requests->capacity,
                               .rounds = requests->rounds,
                               .most_parts = requests->most_parts,
                               .least_part = requests->least_part};
  }
  plan_->launch({classes, 1, 1}, stream, args);
}

void AttentionPlanner::run(Stream stream, const Batch& batch, AttentionArgs args) {
  args.mask = {problem_.window, buffers_.spans};
  args.work.partial_out = buffers_.workspace;
  args.work.partial_stats = args.work.partial_out + workspace_rows_ * problem_.partial_dims;
  for (const RequestClass* requests : {&decode_, &prefill_}) {
    if (!requests->attention || batch.max_query_len * problem_.group < requests->min_rows) continue;
    if (requests == &decode_ && only_long(batch) && !device_.capturing(stream)) continue;
    args.work.plan = buffers_.plan + requests->plan_offset;
    args.work.workgroups = requests->workgroups;
    args.work.fixed_parts = requests->most_parts > 1;
    args.work.block_rows = requests->block_rows;
    requests->attention->launch({requests->workgroups, 1, 1}, stream, args);
    // Rows that a plan can have joined.
    const int64_t joins = requests->most_parts > 1    ? bounds_.requests * problem_.kv_heads
                          : requests->most_parts == 1 ? 0
                                                      : int64_t{requests->workgroups - 1} * requests->rounds;
    const int64_t rows = joins * requests->block_rows;
    const int64_t blocks = device_.info().compute_units * combine_->config().blocks_per_unit;
    args.work.combine_blocks = static_cast<int32_t>(std::min(rows, blocks));
    if (args.work.combine_blocks > 0) combine_->launch({args.work.combine_blocks, 1, 1}, stream, args);
  }
}

}  // namespace rocmforge
