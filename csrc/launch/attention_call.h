// SPDX-License-Identifier: Apache-2.0
// What the ops of attention have in common: how a batch is planned, and what they demand of all tensors but those that
// hold keys. A table here is for a struct `Call` that derives from AttentionCall.
#pragma once

#include <array>
#include <cmath>
#include <numbers>

#include "bindings.h"
#include "conditions.h"
#include "launch/attention.h"
#include "tensor.h"

namespace rocmforge {

inline bool one_run(const TensorView& view) { return view.shape[0] <= 1 || view.stride[0] == 1; }

// Rows that start at multiples of 16 bytes, contiguous in their last dimension.
inline bool aligned(const TensorView& view) {
  int64_t strides = 0;
  for (int i = 0; i < view.dims - 1; ++i) strides |= view.stride[i];
  return view.last_stride() == 1 && view.data % 16 == 0 && strides * element_size(view.element()) % 16 == 0;
}

// Python's `causal`: a bool, or a tensor that says it of each request.
inline Causal causal_of(pybind11::handle object) {
  return object.ptr() == Py_True ? Causal::kYes : object.ptr() == Py_False ? Causal::kNo : Causal::kEach;
}

struct PlanCall {
  const AttentionPlanner& planner;
  TensorView query_start_loc, seq_lens;
  int64_t tokens, max_query_len;
  Causal causal;
  TensorView causal_requests, ranges;

  PlanCall(const AttentionPlanner& of, pybind11::handle starts, pybind11::handle lens, int64_t token_count,
           int64_t longest, pybind11::handle causal_given, pybind11::handle ranges_given)
      : planner(of),
        query_start_loc(starts),
        seq_lens(lens),
        tokens(token_count),
        max_query_len(longest),
        causal(causal_of(causal_given)),
        causal_requests(causal == Causal::kEach ? causal_given : pybind11::handle(Py_None)),
        ranges(ranges_given) {}

  int64_t requests() const { return seq_lens.shape[0]; }
  int device() const { return planner.buffers().device; }
  Batch batch() const { return {requests(), tokens, max_query_len, causal}; }
  BatchData data() const {
    BatchData data{.query_start = reinterpret_cast<const int32_t*>(query_start_loc.data),
                   .seq_lens = reinterpret_cast<const int32_t*>(seq_lens.data),
                   .causal = causal == Causal::kEach ? reinterpret_cast<const int32_t*>(causal_requests.data) : nullptr,
                   .ranges = {}};
    if (ranges.given)
      data.ranges = {reinterpret_cast<const int32_t*>(ranges.data), static_cast<int32_t>(ranges.shape[1]),
                     static_cast<int32_t>(ranges.stride[0]), planner.problem().clamped};
    return data;
  }
};

inline bool is_index(const TensorView& view, int device) {
  return view.type == TensorType::kInt32 && view.device == device;
}

inline constexpr auto kPlanConditions = std::to_array<Condition<PlanCall>>({
    {"num_tokens", "bounds", [](const PlanCall& c) { return c.tokens >= 0 && c.tokens <= c.planner.bounds().tokens; }},
    {"max_query_len", "least", [](const PlanCall& c) { return c.max_query_len >= 0; }},
    {"seq_lens", "tensor", [](const PlanCall& c) { return c.seq_lens.readable; }},
    {"seq_lens", "dtype", [](const PlanCall& c) { return c.seq_lens.type == TensorType::kInt32; }},
    {"seq_lens", "device", [](const PlanCall& c) { return c.seq_lens.device == c.device(); }},
    {"seq_lens", "dims", [](const PlanCall& c) { return c.seq_lens.dims == 1; }},
    {"seq_lens", "contiguous", [](const PlanCall& c) { return one_run(c.seq_lens); }},
    {"seq_lens", "bounds",
     [](const PlanCall& c) { return c.requests() >= 1 && c.requests() <= c.planner.bounds().requests; }},
    {"query_start_loc", "tensor", [](const PlanCall& c) { return c.query_start_loc.readable; }},
    {"query_start_loc", "dtype", [](const PlanCall& c) { return c.query_start_loc.type == TensorType::kInt32; }},
    {"query_start_loc", "device", [](const PlanCall& c) { return c.query_start_loc.device == c.device(); }},
    {"query_start_loc", "shape",
     [](const PlanCall& c) { return c.query_start_loc.dims == 1 && c.query_start_loc.shape[0] == c.requests() + 1; }},
    {"query_start_loc", "contiguous", [](const PlanCall& c) { return one_run(c.query_start_loc); }},
    {"causal", "type", [](const PlanCall& c) { return c.causal != Causal::kEach || c.causal_requests.readable; }},
    {"causal", "requests",
     [](const PlanCall& c) {
       const TensorView& each = c.causal_requests;
       return c.causal != Causal::kEach ||
              (is_index(each, c.device()) && each.dims == 1 && each.shape[0] == c.requests() && one_run(each));
     }},
    {"ranges", "mask", [](const PlanCall& c) { return !c.ranges.given || c.planner.problem().listed; }},
    {"ranges", "tensor", [](const PlanCall& c) { return !c.ranges.given || c.ranges.readable; }},
    {"ranges", "shape",
     [](const PlanCall& c) {
       return !c.ranges.given || (is_index(c.ranges, c.device()) && c.ranges.dims == 3 &&
                                  c.ranges.shape[0] == c.requests() && c.ranges.shape[2] == 2);
     }},
    {"ranges", "contiguous",
     [](const PlanCall& c) {
       return !c.ranges.given || (c.ranges.stride[2] == 1 && (c.ranges.shape[1] <= 1 || c.ranges.stride[1] == 2));
     }},
});

struct AttentionCall {
  const AttentionPlanner& planner;
  Batch batch;  // that was planned
  TensorView query, seq_lens, out, lse;
  int64_t max_query_len;
  double scale;
  Causal causal;

  const Problem& problem() const { return planner.problem(); }
  TensorType type() const { return static_cast<TensorType>(problem().element); }
  int device() const { return planner.buffers().device; }
  int64_t tokens() const { return query.shape[0]; }
  int query_dims() const { return problem().key_dims; }
};

// Of the numbers, and that the plan is one for the op.
template <class Call, AttentionOp kOp>
constexpr auto attention_numbers() {
  return std::to_array<Condition<Call>>({
      {"plan", "op", [](const Call& c) { return c.problem().op == kOp; }},
      {"scale", "range", [](const Call& c) { return c.scale > 0 && std::isfinite(c.scale); }},
      {"causal", "plan", [](const Call& c) { return c.causal == c.batch.causal; }},
      {"max_query_len", "plan", [](const Call& c) { return c.max_query_len <= c.batch.max_query_len; }},
  });
}

template <class Call>
constexpr auto attention_query(const char* query = "query") {
  return std::to_array<Condition<Call>>({
      {query, "tensor", [](const Call& c) { return c.query.readable; }},
      {query, "dtype", [](const Call& c) { return c.query.type == c.type(); }},
      {query, "device", [](const Call& c) { return c.query.device == c.device(); }},
      {query, "shape",
       [](const Call& c) {
         return c.query.dims == 3 && c.query.shape[1] == c.problem().heads() && c.query.shape[2] == c.query_dims();
       }},
      {query, "aligned", [](const Call& c) { return aligned(c.query); }},
  });
}

// Of what is written, and of the requests: after the query's.
template <class Call>
constexpr auto attention_results() {
  return std::to_array<Condition<Call>>({
      {"out", "tensor", [](const Call& c) { return c.out.readable; }},
      {"out", "dtype", [](const Call& c) { return c.out.type == c.type(); }},
      {"out", "device", [](const Call& c) { return c.out.device == c.device(); }},
      {"out", "shape",
       [](const Call& c) {
         return c.out.dims == 3 && c.out.shape[0] == c.tokens() && c.out.shape[1] == c.problem().heads() &&
                c.out.shape[2] == c.problem().value_dims;
       }},
      {"out", "aligned", [](const Call& c) { return aligned(c.out); }},
      {"lse", "tensor", [](const Call& c) { return !c.lse.given || c.lse.readable; }},
      {"lse", "dtype", [](const Call& c) { return !c.lse.given || c.lse.type == TensorType::kFloat; }},
      {"lse", "device", [](const Call& c) { return !c.lse.given || c.lse.device == c.device(); }},
      {"lse", "shape",
       [](const Call& c) {
         return !c.lse.given ||
                (c.lse.dims == 2 && c.lse.shape[0] == c.problem().heads() && c.lse.shape[1] == c.tokens());
       }},
      {"lse", "own", [](const Call& c) { return !c.lse.given || is_own(c.lse); }},
      {"seq_lens", "tensor", [](const Call& c) { return c.seq_lens.readable; }},
      {"seq_lens", "plan",
       [](const Call& c) { return c.seq_lens.dims == 1 && c.seq_lens.shape[0] == c.batch.requests; }},
  });
}

// Which pages hold a request's keys.
template <class Call>
constexpr auto attention_pages() {
  return std::to_array<Condition<Call>>({
      {"block_table", "tensor", [](const Call& c) { return c.block_table.readable; }},
      {"block_table", "dtype", [](const Call& c) { return c.block_table.type == TensorType::kInt32; }},
      {"block_table", "device", [](const Call& c) { return c.block_table.device == c.device(); }},
      {"block_table", "shape",
       [](const Call& c) { return c.block_table.dims == 2 && c.block_table.shape[0] >= c.batch.requests; }},
      {"block_table", "contiguous",
       [](const Call& c) { return c.block_table.shape[1] <= 1 || c.block_table.stride[1] == 1; }},
  });
}

// All but where keys lie, and what the planner knows.
inline AttentionArgs common_arguments(const AttentionCall& call) {
  const Problem& problem = call.problem();
  const TensorView &query = call.query, &out = call.out, &lse = call.lse;
  AttentionArgs args{.heads = {make_fast_div(static_cast<uint32_t>(problem.group)), problem.kv_heads},
                     .query = {reinterpret_cast<const void*>(query.data), query.stride[0], query.stride[1]},
                     .out = {reinterpret_cast<void*>(out.data), out.stride[0], out.stride[1], problem.value_dims},
                     .lse = {},
                     .keys = {},
                     .mask = {},
                     .softmax = {.scale_log2 = static_cast<float>(call.scale * std::numbers::log2e)},
                     .work = {}};
  if (lse.given) args.lse = {reinterpret_cast<float*>(lse.data), lse.stride[0], lse.stride[1]};
  return args;
}

// Launches attention by a plan unless a condition fails, whose name it returns. arguments(call) are the kernels'.
template <const auto& kConditions, class Call>
Refusal run(AttentionPlanner& planner, Stream stream, const Call& call) {
  if (Refusal refusal = first_failed<kConditions>(call)) return refusal;
  if (call.tokens() == 0) return {};
  const AttentionArgs args = arguments(call);
  ReleaseGil released(planner.device());
  planner.run(stream, call.batch, args);
  return {};
}

// The plan as well, or neither. make_call() is asked for once the plan's conditions hold.
template <const auto& kConditions, class MakeCall>
Refusal plan_and_run(AttentionPlanner& planner, Stream stream, const PlanCall& to_plan, MakeCall&& make_call) {
  if (Refusal refusal = first_failed<kPlanConditions>(to_plan)) return refusal;
  const auto call = make_call();
  if (Refusal refusal = first_failed<kConditions>(call)) return refusal;
  const AttentionArgs args = arguments(call);
  ReleaseGil released(planner.device());
  planner.plan(stream, to_plan.data(), call.batch);
  planner.run(stream, call.batch, args);
  return {};
}

}  // namespace rocmforge
