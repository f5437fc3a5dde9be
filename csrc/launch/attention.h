// SPDX-License-Identifier: Apache-2.0
// Paged attention: which kernels serve a batch, on how many workgroups, in which buffers. The choice depends on fixed
// bounds of the batch only (never on the longest request), so a captured graph is right for every batch within them.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/attention/args.h"
#include "launch/cache.h"

namespace rocmforge {

// What an attention layer is, apart from the batch. `core` names a matrix core other than the target's own, which only
// the CPU target has.
struct AttentionLayer {
  Element element;
  int head_size, kv_heads, group, window;
  std::string core;
};

// Bounds of the batches a planner serves; decode_query_len: query tokens of a request in a decode step.
struct BatchBounds {
  int64_t requests, tokens, decode_query_len;
};

// One class of requests, by packed rows (query tokens * group), with its kernels and its part of the plan buffer.
struct AttentionPart {
  Kernel* attention = nullptr;
  int min_rows = 0, max_rows = 0;
  int block_rows = 0, workgroups = 0, capacity = 0, rounds = 1;
  int64_t plan_offset = 0, scratch_offset = 0;  // in words
};

// Memory of the caller's, as large as the planner says, on the device with this index of torch's.
struct PlannerBuffers {
  int32_t* plan = nullptr;
  float* workspace = nullptr;
  int device = 0;
};

// Index of the smallest decode variant whose rows hold decode_query_len tokens, or else one token; -1 if none does.
// `variant_rows` rises; 0 marks a variant the target does not have.
int decode_variant(const int (&variant_rows)[3], int group, int64_t decode_query_len);

// Row blocks that at most `tokens` tokens of at most `requests` requests can fill.
int64_t row_block_bound(const BatchBounds& bounds, int group, int block_rows);

class AttentionPlanner {
 public:
  AttentionPlanner(Device& device, AttentionLayer layer, const BatchBounds& bounds);

  const AttentionLayer& layer() const { return layer_; }
  const BatchBounds& bounds() const { return bounds_; }
  Device& device() const { return device_; }
  // Sizes of the buffers.
  int64_t plan_words() const { return plan_words_; }
  int64_t workspace_floats() const { return workspace_rows_ * (layer_.head_size + 2); }

  // Comes before everything that follows.
  void use_buffers(const PlannerBuffers& buffers) { buffers_ = buffers; }
  const PlannerBuffers& buffers() const { return buffers_; }

  // Launches the plan kernel, for both classes. A batch that cannot have a decode step's request, as its tokens would
  // not fit the others, leaves that class empty and gives the other what comes: the bounds may be too large.
  void plan(Stream stream, uintptr_t query_start, uintptr_t seq_lens, int64_t requests, int64_t tokens,
            int64_t max_query_len);

  // Launches attention and combine for the classes that a batch with queries of at most max_query_len tokens can have,
  // and into a graph also for one that this batch leaves empty: its replays serve others.
  // `args` comes without plan, partial results and block_rows.
  void run(Stream stream, int64_t max_query_len, AttentionArgs args);

 private:
  void set_part(AttentionPart& part, Kernel& kernel, int min_rows, int max_rows, int64_t capacity);

  Device& device_;
  AttentionLayer layer_;
  BatchBounds bounds_;
  PlannerBuffers buffers_;
  Kernel* plan_;
  Kernel* combine_;
  AttentionPart decode_, prefill_;
  bool prefill_only_ = false;  // the last plan
  int64_t plan_words_ = 0, workspace_rows_ = 0;
};

}  // namespace rocmforge
