// SPDX-License-Identifier: Apache-2.0
// Paged attention: which kernels serve a batch, on how many workgroups, in which buffers. All sizes follow from the
// planner's bounds; the requests' lengths are read on the device. A kernel that a batch's own bounds leave without work
// is launched all the same where it goes into a graph, whose replays serve other batches.
#pragma once

#include <cstdint>

#include "kernels/attention/args.h"
#include "launch/problem.h"
#include "runtime/kernel.h"

namespace rocmforge {

// What a planner serves at most; decode_query_len: query tokens of a request in a decode step.
struct BatchBounds {
  int64_t requests, tokens, decode_query_len;
  bool invariant;  // a request's results must not depend on the others of its batch, not to the bit
};

// Whether tokens see no keys after their own: those of all requests or of none, or as a tensor says of each.
enum class Causal : int { kNo, kYes, kEach };

// What the host knows of a batch that was planned; the longest query and the tokens may be upper bounds.
struct Batch {
  int64_t requests, tokens, max_query_len;
  Causal causal;
};

// A batch's lengths and what decides on its mask, on the device.
struct BatchData {
  const int32_t* query_start;
  const int32_t* seq_lens;
  const int32_t* causal;  // if Causal::kEach
  Ranges ranges;
};

// A class of requests, by packed rows (query tokens * group), with the kernel and the part of the plan buffer that are
// its own: the host's side of PlanClass.
struct RequestClass {
  Kernel* attention = nullptr;
  int min_rows = 0, max_rows = 0;
  int block_rows = 0, workgroups = 0, capacity = 0, rounds = 1, most_parts = 0, least_part = 1;
  int64_t plan_offset = 0, scratch_offset = 0;  // in words
};

// Memory of the caller's, as large as the planner says, on the device with this index of torch's.
struct PlannerBuffers {
  int32_t* plan = nullptr;
  float* workspace = nullptr;
  int device = 0;
  int32_t* spans = nullptr;  // [bounds.tokens, 2], if the problem's mask is listed
};

// The decode kernels that a target has for a problem; a null it does not have. Their rows rise.
struct DecodeKernels {
  static constexpr int kCount = 3;

  DecodeKernels(Device& device, const Problem& problem);

  // The smallest whose rows hold as many tokens of a request, or else one token; null if none does.
  Kernel* smallest(int group, int64_t tokens) const;
  int most_rows() const;  // 0 without any

  Kernel* kernels[kCount] = {};
};

// Row blocks that at most `tokens` tokens of at most `requests` requests can fill.
int64_t row_block_bound(const BatchBounds& bounds, int group, int block_rows);

class AttentionPlanner {
 public:
  AttentionPlanner(Device& device, Problem problem, const BatchBounds& bounds);

  const Problem& problem() const { return problem_; }
  const BatchBounds& bounds() const { return bounds_; }
  Device& device() const { return device_; }
  // Of a key's row in the cache, its value's included: the kernels' key format says.
  int row_elements() const;
  // Sizes of the buffers.
  int64_t plan_words() const { return plan_words_; }
  int64_t workspace_floats() const { return workspace_rows_ * (problem_.partial_dims + 2); }

  // Comes before everything that follows.
  void use_buffers(const PlannerBuffers& buffers) { buffers_ = buffers; }
  const PlannerBuffers& buffers() const { return buffers_; }

  // Launches the plan kernel, for both classes. Where the batch has long queries only (see below), decode's is left
  // empty and prefill takes what comes: the bounds that say so may be too large.
  void plan(Stream stream, const BatchData& data, const Batch& batch);

  // Launches attention and combine for the classes that the planned batch can have, and into a graph also for one that
  // it leaves empty: the graph's replays serve others. `args` comes without plan, partial results and block_rows.
  void run(Stream stream, const Batch& batch, AttentionArgs args);

 private:
  void set_class(RequestClass& requests, Kernel& kernel, int min_rows, int max_rows, int64_t capacity);
  // A batch that cannot have a request of decode's, as its tokens would not fit the others.
  bool only_long(const Batch& batch) const;

  Device& device_;
  Problem problem_;
  BatchBounds bounds_;
  PlannerBuffers buffers_;
  Kernel* plan_;
  Kernel* combine_;
  RequestClass decode_, prefill_;
  int64_t plan_words_ = 0, workspace_rows_ = 0;
};

}  // namespace rocmforge
