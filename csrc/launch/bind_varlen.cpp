// SPDX-License-Identifier: Apache-2.0
// Python's view of attention over keys and values in two tensors. To the kernels a request's keys are one page, and the
// block table is where they start.
#include <pybind11/pybind11.h>

#include <array>
#include <limits>

#include "launch/attention_call.h"
#include "launch/bind_rows.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct VarlenCall : AttentionCall {
  TensorView key, value, key_start_loc;
  int64_t window;

  // [key tokens, kv_heads, dims]
  bool is_of(const TensorView& view, int dims) const {
    return view.dims == 3 && view.shape[1] == problem().kv_heads && view.shape[2] == dims;
  }
};

constexpr auto kVarlenConditions = conditions(
    attention_numbers<VarlenCall, AttentionOp::kVarlen>(),
    condition<VarlenCall>("window", "plan", [](const VarlenCall& c) { return c.window == c.problem().window; }),
    attention_query<VarlenCall>(), follows<VarlenCall, &VarlenCall::key>("key"),
    std::to_array<Condition<VarlenCall>>({
        {"key", "shape", [](const VarlenCall& c) { return c.is_of(c.key, c.problem().key_dims); }},
        {"key", "most", [](const VarlenCall& c) { return c.key.shape[0] <= std::numeric_limits<int32_t>::max(); }},
        {"key", "aligned", [](const VarlenCall& c) { return aligned(c.key); }},
    }),
    follows<VarlenCall, &VarlenCall::value>("value"),
    std::to_array<Condition<VarlenCall>>({
        {"value", "shape",
         [](const VarlenCall& c) {
           return c.is_of(c.value, c.problem().value_dims) && c.value.shape[0] == c.key.shape[0];
         }},
        {"value", "aligned", [](const VarlenCall& c) { return aligned(c.value); }},
    }),
    attention_results<VarlenCall>(),
    std::to_array<Condition<VarlenCall>>({
        {"key_start_loc", "tensor", [](const VarlenCall& c) { return c.key_start_loc.readable; }},
        {"key_start_loc", "dtype", [](const VarlenCall& c) { return c.key_start_loc.type == TensorType::kInt32; }},
        {"key_start_loc", "device", [](const VarlenCall& c) { return c.key_start_loc.device == c.device(); }},
        {"key_start_loc", "shape",
         [](const VarlenCall& c) {
           return c.key_start_loc.dims == 1 && c.key_start_loc.shape[0] == c.batch.requests + 1;
         }},
        {"key_start_loc", "contiguous", [](const VarlenCall& c) { return one_run(c.key_start_loc); }},
    }));

AttentionArgs arguments(const VarlenCall& call) {
  const TensorView &key = call.key, &value = call.value;
  AttentionArgs args = common_arguments(call);
  args.keys = {.data = reinterpret_cast<const void*>(key.data),
               .block_table = reinterpret_cast<const int32_t*>(call.key_start_loc.data),
               .block_stride = key.stride[0],
               .head_stride = key.stride[1],
               .token_stride = key.stride[0],
               .table_stride = 1,
               .block_size = make_fast_div(uint32_t{1} << 30),
               .blocks = static_cast<int32_t>(key.shape[0]),
               .dims = call.problem().key_dims,
               .values = {reinterpret_cast<const void*>(value.data), value.stride[0], value.stride[1]}};
  return args;
}

// Requests, tokens, max_query_len and causal of the plan.
Refusal run_varlen(AttentionPlanner& planner, Stream stream, int64_t requests, int64_t tokens, int64_t plan_query_len,
                   py::handle plan_causal, py::handle query, py::handle key, py::handle value, py::handle key_start_loc,
                   py::handle seq_lens, py::handle out, py::handle lse, int64_t max_query_len, double scale,
                   int64_t window, py::handle causal) {
  const VarlenCall call{{planner,
                         {requests, tokens, plan_query_len, causal_of(plan_causal)},
                         TensorView(query),
                         TensorView(seq_lens),
                         TensorView(out),
                         TensorView(lse),
                         max_query_len,
                         scale,
                         causal_of(causal)},
                        TensorView(key),
                        TensorView(value),
                        TensorView(key_start_loc),
                        window};
  return run<kVarlenConditions>(planner, stream, call);
}

Refusal plan_and_run_varlen(AttentionPlanner& planner, Stream stream, py::handle query_start_loc, int64_t tokens,
                            py::handle query, py::handle key, py::handle value, py::handle key_start_loc,
                            py::handle seq_lens, py::handle out, py::handle lse, int64_t max_query_len, double scale,
                            int64_t window, py::handle causal) {
  const PlanCall to_plan(planner, query_start_loc, seq_lens, tokens, max_query_len, causal, Py_None);
  return plan_and_run<kVarlenConditions>(planner, stream, to_plan, [&] {
    return VarlenCall{{planner, to_plan.batch(), TensorView(query), TensorView(seq_lens), TensorView(out),
                       TensorView(lse), max_query_len, scale, causal_of(causal)},
                      TensorView(key),
                      TensorView(value),
                      TensorView(key_start_loc),
                      window};
  });
}

}  // namespace

void bind_varlen(py::module_& module) {
  list_conditions(module, "varlen_attention", kVarlenConditions);
  module.def("run_varlen", &run_varlen, "Launches attention by a plan; the name of the condition that fails, if any.");
  module.def("plan_and_run_varlen", &plan_and_run_varlen, "Both, or neither.");
}

}  // namespace rocmforge
