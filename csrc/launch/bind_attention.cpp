// SPDX-License-Identifier: Apache-2.0
// Python's view of attention. Every eager layer comes here, so tensors are taken as they are and checked: a call costs
// 1.0 us with that, and 3.7 where Python does it.
#include <pybind11/pybind11.h>

#include <array>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings.h"
#include "conditions.h"
#include "launch/attention.h"
#include "tensor.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct PlanCall {
  const AttentionPlanner& planner;
  TensorView query_start_loc, seq_lens;
  int64_t tokens, max_query_len;

  int64_t requests() const { return seq_lens.shape[0]; }
  Batch batch() const { return {requests(), tokens, max_query_len}; }
};

bool one_run(const TensorView& view) { return view.shape[0] <= 1 || view.stride[0] == 1; }

constexpr auto kPlanConditions = std::to_array<Condition<PlanCall>>({
    {"num_tokens", "bounds", [](const PlanCall& c) { return c.tokens >= 0 && c.tokens <= c.planner.bounds().tokens; }},
    {"max_query_len", "least", [](const PlanCall& c) { return c.max_query_len >= 0; }},
    {"seq_lens", "tensor", [](const PlanCall& c) { return c.seq_lens.readable; }},
    {"seq_lens", "dtype", [](const PlanCall& c) { return c.seq_lens.type == TensorType::kInt32; }},
    {"seq_lens", "device", [](const PlanCall& c) { return c.seq_lens.device == c.planner.buffers().device; }},
    {"seq_lens", "dims", [](const PlanCall& c) { return c.seq_lens.dims == 1; }},
    {"seq_lens", "contiguous", [](const PlanCall& c) { return one_run(c.seq_lens); }},
    {"seq_lens", "bounds",
     [](const PlanCall& c) { return c.requests() >= 1 && c.requests() <= c.planner.bounds().requests; }},
    {"query_start_loc", "tensor", [](const PlanCall& c) { return c.query_start_loc.readable; }},
    {"query_start_loc", "dtype", [](const PlanCall& c) { return c.query_start_loc.type == TensorType::kInt32; }},
    {"query_start_loc", "device",
     [](const PlanCall& c) { return c.query_start_loc.device == c.planner.buffers().device; }},
    {"query_start_loc", "shape",
     [](const PlanCall& c) { return c.query_start_loc.dims == 1 && c.query_start_loc.shape[0] == c.requests() + 1; }},
    {"query_start_loc", "contiguous", [](const PlanCall& c) { return one_run(c.query_start_loc); }},
});

struct RunCall {
  const AttentionPlanner& planner;
  Batch batch;  // that was planned
  TensorView query, cache, block_table, seq_lens, out, sinks;
  int64_t max_query_len;
  double scale;
  int64_t window;

  const Problem& problem() const { return planner.problem(); }
  TensorType type() const { return static_cast<TensorType>(problem().element); }
  int device() const { return planner.buffers().device; }
};

// Rows that start at multiples of 16 bytes, contiguous in their last dimension.
bool aligned(const TensorView& view) {
  int64_t strides = 0;
  for (int i = 0; i < view.dims - 1; ++i) strides |= view.stride[i];
  return view.last_stride() == 1 && view.data % 16 == 0 && strides * element_size(view.element()) % 16 == 0;
}

constexpr auto kRunConditions = std::to_array<Condition<RunCall>>({
    {"scale", "range", [](const RunCall& c) { return c.scale > 0 && std::isfinite(c.scale); }},
    {"window", "plan", [](const RunCall& c) { return c.window == c.problem().window; }},
    {"max_query_len", "plan", [](const RunCall& c) { return c.max_query_len <= c.batch.max_query_len; }},
    {"query", "tensor", [](const RunCall& c) { return c.query.readable; }},
    {"query", "dtype", [](const RunCall& c) { return c.query.type == c.type(); }},
    {"query", "device", [](const RunCall& c) { return c.query.device == c.device(); }},
    {"query", "shape",
     [](const RunCall& c) {
       return c.query.dims == 3 && c.query.shape[1] == c.problem().heads() && c.query.shape[2] == c.problem().key_dims;
     }},
    {"query", "aligned", [](const RunCall& c) { return aligned(c.query); }},
    {"kv_cache", "tensor", [](const RunCall& c) { return c.cache.readable; }},
    {"kv_cache", "dtype", [](const RunCall& c) { return c.cache.type == c.type(); }},
    {"kv_cache", "device", [](const RunCall& c) { return c.cache.device == c.device(); }},
    {"kv_cache", "shape",
     [](const RunCall& c) {
       return c.cache.dims == 4 && c.cache.shape[1] == c.problem().kv_heads &&
              c.cache.shape[3] == c.planner.row_elements();
     }},
    {"kv_cache", "block_size",
     [](const RunCall& c) { return c.cache.shape[2] > 0 && c.cache.shape[2] % kBlockMultiple == 0; }},
    {"kv_cache", "aligned", [](const RunCall& c) { return aligned(c.cache); }},
    {"out", "tensor", [](const RunCall& c) { return c.out.readable; }},
    {"out", "dtype", [](const RunCall& c) { return c.out.type == c.type(); }},
    {"out", "device", [](const RunCall& c) { return c.out.device == c.device(); }},
    {"out", "shape",
     [](const RunCall& c) {
       return c.out.dims == 3 && c.out.shape[0] == c.query.shape[0] && c.out.shape[1] == c.problem().heads() &&
              c.out.shape[2] == c.problem().value_dims;
     }},
    {"out", "aligned", [](const RunCall& c) { return aligned(c.out); }},
    {"seq_lens", "tensor", [](const RunCall& c) { return c.seq_lens.readable; }},
    {"seq_lens", "plan",
     [](const RunCall& c) { return c.seq_lens.dims == 1 && c.seq_lens.shape[0] == c.batch.requests; }},
    {"block_table", "tensor", [](const RunCall& c) { return c.block_table.readable; }},
    {"block_table", "dtype", [](const RunCall& c) { return c.block_table.type == TensorType::kInt32; }},
    {"block_table", "device", [](const RunCall& c) { return c.block_table.device == c.device(); }},
    {"block_table", "shape",
     [](const RunCall& c) { return c.block_table.dims == 2 && c.block_table.shape[0] >= c.batch.requests; }},
    {"block_table", "contiguous",
     [](const RunCall& c) { return c.block_table.shape[1] <= 1 || c.block_table.stride[1] == 1; }},
    {"sinks", "tensor", [](const RunCall& c) { return !c.sinks.given || c.sinks.readable; }},
    {"sinks", "dtype", [](const RunCall& c) { return !c.sinks.given || c.sinks.type == TensorType::kFloat; }},
    {"sinks", "device", [](const RunCall& c) { return !c.sinks.given || c.sinks.device == c.device(); }},
    {"sinks", "shape",
     [](const RunCall& c) { return !c.sinks.given || (c.sinks.dims == 1 && c.sinks.shape[0] == c.problem().heads()); }},
    {"sinks", "contiguous", [](const RunCall& c) { return !c.sinks.given || one_run(c.sinks); }},
});

AttentionArgs arguments(const RunCall& call) {
  const Problem& problem = call.problem();
  const TensorView &query = call.query, &cache = call.cache, &table = call.block_table, &out = call.out;
  return {.heads = {make_fast_div(static_cast<uint32_t>(problem.group)), problem.kv_heads},
          .query = {reinterpret_cast<const void*>(query.data), query.stride[0], query.stride[1]},
          .out = {reinterpret_cast<void*>(out.data), out.stride[0], out.stride[1]},
          .keys = {.data = reinterpret_cast<const void*>(cache.data),
                   .block_table = reinterpret_cast<const int32_t*>(table.data),
                   .block_stride = cache.stride[0],
                   .head_stride = cache.stride[1],
                   .token_stride = cache.stride[2],
                   .table_stride = table.stride[0],
                   .block_size = make_fast_div(static_cast<uint32_t>(cache.shape[2])),
                   .blocks = static_cast<int32_t>(cache.shape[0])},
          .mask = {problem.window},
          .softmax = {.sinks = call.sinks.given ? reinterpret_cast<const float*>(call.sinks.data) : nullptr,
                      .scale_log2 = static_cast<float>(call.scale * std::numbers::log2e)},
          .work = {}};
}

Refusal plan(AttentionPlanner& planner, Stream stream, py::handle query_start_loc, py::handle seq_lens, int64_t tokens,
             int64_t max_query_len) {
  const PlanCall call{planner, TensorView(query_start_loc), TensorView(seq_lens), tokens, max_query_len};
  if (Refusal refusal = first_failed<kPlanConditions>(call)) return refusal;
  const Batch batch = call.batch();
  ReleaseGil released(planner.device());
  planner.plan(stream, call.query_start_loc.data, call.seq_lens.data, batch);
  return {};
}

// Requests and tokens of the plan, and its max_query_len.
Refusal run(AttentionPlanner& planner, Stream stream, int64_t requests, int64_t tokens, int64_t plan_query_len,
            py::handle query, py::handle kv_cache, py::handle block_table, py::handle seq_lens, py::handle out,
            py::handle sinks, int64_t max_query_len, double scale, int64_t window) {
  const RunCall call{.planner = planner,
                     .batch = {requests, tokens, plan_query_len},
                     .query = TensorView(query),
                     .cache = TensorView(kv_cache),
                     .block_table = TensorView(block_table),
                     .seq_lens = TensorView(seq_lens),
                     .out = TensorView(out),
                     .sinks = TensorView(sinks),
                     .max_query_len = max_query_len,
                     .scale = scale,
                     .window = window};
  if (Refusal refusal = first_failed<kRunConditions>(call)) return refusal;
  if (call.query.shape[0] == 0) return {};
  const AttentionArgs args = arguments(call);
  ReleaseGil released(planner.device());
  planner.run(stream, call.batch, args);
  return {};
}

Refusal plan_and_run(AttentionPlanner& planner, Stream stream, py::handle query_start_loc, int64_t tokens,
                     py::handle query, py::handle kv_cache, py::handle block_table, py::handle seq_lens, py::handle out,
                     py::handle sinks, int64_t max_query_len, double scale, int64_t window) {
  const PlanCall to_plan{planner, TensorView(query_start_loc), TensorView(seq_lens), tokens, max_query_len};
  if (Refusal refusal = first_failed<kPlanConditions>(to_plan)) return refusal;
  const RunCall call{.planner = planner,
                     .batch = to_plan.batch(),
                     .query = TensorView(query),
                     .cache = TensorView(kv_cache),
                     .block_table = TensorView(block_table),
                     .seq_lens = TensorView(seq_lens),
                     .out = TensorView(out),
                     .sinks = TensorView(sinks),
                     .max_query_len = max_query_len,
                     .scale = scale,
                     .window = window};
  if (Refusal refusal = first_failed<kRunConditions>(call)) return refusal;
  const AttentionArgs args = arguments(call);
  ReleaseGil released(planner.device());
  planner.plan(stream, to_plan.query_start_loc.data, to_plan.seq_lens.data, call.batch);
  planner.run(stream, call.batch, args);
  return {};
}

Element element_named(const std::string& name) {
  for (int i = 0; i < kElements; ++i)
    if (name == kElementNames[i]) return static_cast<Element>(i);
  throw std::invalid_argument("Problem: element is " + name + "; it must be bf16, f16 or float");
}

}  // namespace

void bind_attention(py::module_& module) {
  list_conditions(module, "AttentionPlanner.plan", kPlanConditions);
  list_conditions(module, "paged_attention", kRunConditions);
  module.attr("block_multiple") = kBlockMultiple;
  py::class_<Problem>(module, "Problem", "What attention computes: see rocmforge_plugin/problem.py.")
      .def(py::init([](const std::string& element, int key_dims, int value_dims, int kv_heads, int group, int window,
                       std::string suffix, std::string combine_suffix) {
             return Problem{.element = element_named(element),
                            .key_dims = key_dims,
                            .value_dims = value_dims,
                            .kv_heads = kv_heads,
                            .group = group,
                            .window = window,
                            .suffix = std::move(suffix),
                            .combine_suffix = std::move(combine_suffix)};
           }),
           py::kw_only(), py::arg("element"), py::arg("key_dims"), py::arg("value_dims"), py::arg("kv_heads"),
           py::arg("group"), py::arg("window"), py::arg("suffix"), py::arg("combine_suffix"));
  module.def(
      "decode_rows",
      [](OpDevice& device, const Problem& problem) { return DecodeKernels(device, problem).most_rows(); },
      "Most packed rows of a request that a decode kernel of this problem takes; 0 where there is none.");
  py::class_<AttentionPlanner>(module, "AttentionPlanner")
      .def(py::init([](OpDevice& device, const Problem& problem, int64_t requests, int64_t tokens,
                       int64_t decode_query_len) {
             return new AttentionPlanner(device, problem, {requests, tokens, decode_query_len});
           }),
           py::keep_alive<1, 2>())
      .def_property_readonly("plan_words", &AttentionPlanner::plan_words)
      .def_property_readonly("row_elements", &AttentionPlanner::row_elements)
      .def_property_readonly("workspace_floats", &AttentionPlanner::workspace_floats)
      .def("use_buffers",
           [](AttentionPlanner& planner, uintptr_t plan, uintptr_t workspace, int device) {
             planner.use_buffers({reinterpret_cast<int32_t*>(plan), reinterpret_cast<float*>(workspace), device});
           })
      .def("plan", &plan, "Launches the plan; the name of the condition that fails, if one does.")
      .def("run", &run, "Launches attention by a plan; the name of the condition that fails, if one does.")
      .def("plan_and_run", &plan_and_run, "Both, or neither.");
}

}  // namespace rocmforge
