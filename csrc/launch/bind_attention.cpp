// SPDX-License-Identifier: Apache-2.0
// Python's view of attention. Every eager layer comes here, so tensors are taken as they are and checked: a call costs
// 1.0 us with that, and 3.7 where Python does it.
#include <pybind11/pybind11.h>

#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "bindings.h"
#include "launch/attention_call.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct PagedCall : AttentionCall {
  TensorView cache, block_table, sinks, slopes;
  int64_t window;
  double soft_cap;
};

bool is_of_heads(const TensorView& view, const PagedCall& call) {
  return view.dims == 1 && view.shape[0] == call.problem().heads();
}

constexpr auto kPagedConditions = conditions(
    attention_numbers<PagedCall, AttentionOp::kPaged>(),
    std::to_array<Condition<PagedCall>>({
        {"window", "plan", [](const PagedCall& c) { return c.window == c.problem().window; }},
        {"soft_cap", "range", [](const PagedCall& c) { return c.soft_cap >= 0 && std::isfinite(c.soft_cap); }},
        {"soft_cap", "plan", [](const PagedCall& c) { return (c.soft_cap > 0) == c.problem().capped; }},
        {"alibi_slopes", "plan", [](const PagedCall& c) { return c.slopes.given == c.problem().sloped; }},
    }),
    attention_query<PagedCall>(),
    std::to_array<Condition<PagedCall>>({
        {"kv_cache", "tensor", [](const PagedCall& c) { return c.cache.readable; }},
        {"kv_cache", "dtype", [](const PagedCall& c) { return c.cache.type == c.type(); }},
        {"kv_cache", "device", [](const PagedCall& c) { return c.cache.device == c.device(); }},
        {"kv_cache", "shape",
         [](const PagedCall& c) {
           return c.cache.dims == 4 && c.cache.shape[1] == c.problem().kv_heads &&
                  c.cache.shape[3] == c.planner.row_elements();
         }},
        {"kv_cache", "block_size",
         [](const PagedCall& c) { return c.cache.shape[2] > 0 && c.cache.shape[2] % kBlockMultiple == 0; }},
        {"kv_cache", "aligned", [](const PagedCall& c) { return aligned(c.cache); }},
    }),
    attention_results<PagedCall>(), attention_pages<PagedCall>(),
    std::to_array<Condition<PagedCall>>({
        {"sinks", "tensor", [](const PagedCall& c) { return !c.sinks.given || c.sinks.readable; }},
        {"sinks", "dtype", [](const PagedCall& c) { return !c.sinks.given || c.sinks.type == TensorType::kFloat; }},
        {"sinks", "device", [](const PagedCall& c) { return !c.sinks.given || c.sinks.device == c.device(); }},
        {"sinks", "shape", [](const PagedCall& c) { return !c.sinks.given || is_of_heads(c.sinks, c); }},
        {"sinks", "contiguous", [](const PagedCall& c) { return !c.sinks.given || one_run(c.sinks); }},
        {"alibi_slopes", "tensor", [](const PagedCall& c) { return !c.slopes.given || c.slopes.readable; }},
        {"alibi_slopes", "dtype",
         [](const PagedCall& c) { return !c.slopes.given || c.slopes.type == TensorType::kFloat; }},
        {"alibi_slopes", "device", [](const PagedCall& c) { return !c.slopes.given || c.slopes.device == c.device(); }},
        {"alibi_slopes", "shape", [](const PagedCall& c) { return !c.slopes.given || is_of_heads(c.slopes, c); }},
        {"alibi_slopes", "contiguous", [](const PagedCall& c) { return !c.slopes.given || one_run(c.slopes); }},
    }));

AttentionArgs arguments(const PagedCall& call) {
  const TensorView &cache = call.cache, &table = call.block_table;
  AttentionArgs args = common_arguments(call);
  args.keys = {.data = reinterpret_cast<const void*>(cache.data),
               .block_table = reinterpret_cast<const int32_t*>(table.data),
               .block_stride = cache.stride[0],
               .head_stride = cache.stride[1],
               .token_stride = cache.stride[2],
               .table_stride = table.stride[0],
               .block_size = make_fast_div(static_cast<uint32_t>(cache.shape[2])),
               .blocks = static_cast<int32_t>(cache.shape[0]),
               .dims = call.problem().key_dims};
  if (call.sinks.given) args.softmax.sinks = reinterpret_cast<const float*>(call.sinks.data);
  if (call.slopes.given) args.softmax.slopes = reinterpret_cast<const float*>(call.slopes.data);
  args.softmax.per_scale = static_cast<float>(1 / call.scale);
  if (call.soft_cap > 0) {
    args.softmax.cap_log2 = static_cast<float>(call.soft_cap * std::numbers::log2e);
    args.softmax.cap_power = static_cast<float>(2 * std::numbers::log2e * call.scale / call.soft_cap);
  }
  return args;
}

Refusal plan(AttentionPlanner& planner, Stream stream, py::handle query_start_loc, py::handle seq_lens, int64_t tokens,
             int64_t max_query_len, py::handle causal, py::handle ranges) {
  const PlanCall call(planner, query_start_loc, seq_lens, tokens, max_query_len, causal, ranges);
  if (Refusal refusal = first_failed<kPlanConditions>(call)) return refusal;
  const Batch batch = call.batch();
  const BatchData data = call.data();
  ReleaseGil released(planner.device());
  planner.plan(stream, data, batch);
  return {};
}

PagedCall paged_call(const AttentionPlanner& planner, const Batch& batch, py::handle query, py::handle kv_cache,
                     py::handle block_table, py::handle seq_lens, py::handle out, py::handle lse, py::handle sinks,
                     py::handle slopes, int64_t max_query_len, double scale, int64_t window, double soft_cap,
                     py::handle causal) {
  return {{planner, batch, TensorView(query), TensorView(seq_lens), TensorView(out), TensorView(lse), max_query_len,
           scale, causal_of(causal)},
          TensorView(kv_cache),
          TensorView(block_table),
          TensorView(sinks),
          TensorView(slopes),
          window,
          soft_cap};
}

// Requests, tokens, max_query_len and causal of the plan.
Refusal run_paged(AttentionPlanner& planner, Stream stream, int64_t requests, int64_t tokens, int64_t plan_query_len,
                  py::handle plan_causal, py::handle query, py::handle kv_cache, py::handle block_table,
                  py::handle seq_lens, py::handle out, py::handle lse, py::handle sinks, py::handle slopes,
                  int64_t max_query_len, double scale, int64_t window, double soft_cap, py::handle causal) {
  return run<kPagedConditions>(planner, stream,
                               paged_call(planner, {requests, tokens, plan_query_len, causal_of(plan_causal)}, query,
                                          kv_cache, block_table, seq_lens, out, lse, sinks, slopes, max_query_len,
                                          scale, window, soft_cap, causal));
}

Refusal plan_and_run_paged(AttentionPlanner& planner, Stream stream, py::handle query_start_loc, int64_t tokens,
                           py::handle ranges, py::handle query, py::handle kv_cache, py::handle block_table,
                           py::handle seq_lens, py::handle out, py::handle lse, py::handle sinks, py::handle slopes,
                           int64_t max_query_len, double scale, int64_t window, double soft_cap, py::handle causal) {
  const PlanCall to_plan(planner, query_start_loc, seq_lens, tokens, max_query_len, causal, ranges);
  return plan_and_run<kPagedConditions>(planner, stream, to_plan, [&] {
    return paged_call(planner, to_plan.batch(), query, kv_cache, block_table, seq_lens, out, lse, sinks, slopes,
                      max_query_len, scale, window, soft_cap, causal);
  });
}

Element element_named(const std::string& name) {
  for (int i = 0; i < kElements; ++i)
    if (name == kElementNames[i]) return static_cast<Element>(i);
  throw std::invalid_argument("Problem: element is " + name + "; it must be bf16, f16 or float");
}

AttentionOp op_named(const std::string& name) {
  for (int i = 0; i < kAttentionOps; ++i)
    if (name == kAttentionOpNames[i]) return static_cast<AttentionOp>(i);
  throw std::invalid_argument("Problem: op is " + name + "; it must be an op of attention");
}

}  // namespace

void bind_attention(py::module_& module) {
  list_conditions(module, "AttentionPlanner.plan", kPlanConditions);
  list_conditions(module, "paged_attention", kPagedConditions);
  module.attr("block_multiple") = kBlockMultiple;
  py::class_<Problem>(module, "Problem", "What attention computes: see rocmforge_plugin/problem.py.")
      .def(py::init([](const std::string& op, const std::string& element, int key_dims, int value_dims, int kv_heads,
                       int group, int window, bool listed, bool clamped, bool capped, bool sloped, int partial_dims,
                       std::string suffix, std::string combine_suffix) {
             return Problem{.op = op_named(op),
                            .element = element_named(element),
                            .key_dims = key_dims,
                            .value_dims = value_dims,
                            .kv_heads = kv_heads,
                            .group = group,
                            .window = window,
                            .listed = listed,
                            .clamped = clamped,
                            .capped = capped,
                            .sloped = sloped,
                            .partial_dims = partial_dims,
                            .suffix = std::move(suffix),
                            .combine_suffix = std::move(combine_suffix)};
           }),
           py::kw_only(), py::arg("op"), py::arg("element"), py::arg("key_dims"), py::arg("value_dims"),
           py::arg("kv_heads"), py::arg("group"), py::arg("window"), py::arg("listed"), py::arg("clamped"),
           py::arg("capped"), py::arg("sloped"), py::arg("partial_dims"), py::arg("suffix"), py::arg("combine_suffix"));
  module.def(
      "decode_rows",
      [](OpDevice& device, const Problem& problem) { return DecodeKernels(device, problem).most_rows(); },
      "Most packed rows of a request that a decode kernel of this problem takes; 0 where there is none.");
  py::class_<AttentionPlanner>(module, "AttentionPlanner")
      .def(py::init([](OpDevice& device, const Problem& problem, int64_t requests, int64_t tokens,
                       int64_t decode_query_len, bool invariant) {
             return new AttentionPlanner(device, problem, {requests, tokens, decode_query_len, invariant});
           }),
           py::keep_alive<1, 2>())
      .def_property_readonly("plan_words", &AttentionPlanner::plan_words)
      .def_property_readonly("row_elements", &AttentionPlanner::row_elements)
      .def_property_readonly("workspace_floats", &AttentionPlanner::workspace_floats)
      .def("use_buffers",
           [](AttentionPlanner& planner, uintptr_t plan, uintptr_t workspace, int device, uintptr_t spans) {
             planner.use_buffers({reinterpret_cast<int32_t*>(plan), reinterpret_cast<float*>(workspace), device,
                                  reinterpret_cast<int32_t*>(spans)});
           })
      .def("plan", &plan, "Launches the plan; the name of the condition that fails, if one does.")
      .def("run_paged", &run_paged, "Launches attention by a plan; the name of the condition that fails, if one does.")
      .def("plan_and_run_paged", &plan_and_run_paged, "Both, or neither.");
}

}  // namespace rocmforge
