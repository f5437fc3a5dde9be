// SPDX-License-Identifier: Apache-2.0
// Python's view of latent attention: queries in two parts, and pages of one KV head whose values are in their keys.
#include <pybind11/pybind11.h>

#include <array>

#include "launch/attention_call.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct LatentCall : AttentionCall {
  TensorView query_rope, cache, block_table;

  // The latent's; the others come in query_rope.
  int query_dims() const { return problem().value_dims; }
  int rope_dims() const { return problem().key_dims - problem().value_dims; }
};

constexpr auto kLatentConditions = conditions(
    attention_numbers<LatentCall, AttentionOp::kLatent>(), attention_query<LatentCall>("query_latent"),
    std::to_array<Condition<LatentCall>>({
        {"query_rope", "given", [](const LatentCall& c) { return c.query_rope.given == (c.rope_dims() > 0); }},
        {"query_rope", "tensor", [](const LatentCall& c) { return !c.query_rope.given || c.query_rope.readable; }},
        {"query_rope", "dtype",
         [](const LatentCall& c) { return !c.query_rope.given || c.query_rope.type == c.type(); }},
        {"query_rope", "device",
         [](const LatentCall& c) { return !c.query_rope.given || c.query_rope.device == c.device(); }},
        {"query_rope", "shape",
         [](const LatentCall& c) {
           return !c.query_rope.given ||
                  (c.query_rope.dims == 3 && c.query_rope.shape[0] == c.tokens() &&
                   c.query_rope.shape[1] == c.problem().heads() && c.query_rope.shape[2] == c.rope_dims());
         }},
        {"query_rope", "aligned", [](const LatentCall& c) { return !c.query_rope.given || aligned(c.query_rope); }},
        {"kv_cache", "tensor", [](const LatentCall& c) { return c.cache.readable; }},
        {"kv_cache", "dtype", [](const LatentCall& c) { return c.cache.type == c.type(); }},
        {"kv_cache", "device", [](const LatentCall& c) { return c.cache.device == c.device(); }},
        {"kv_cache", "shape",
         [](const LatentCall& c) { return c.cache.dims == 3 && c.cache.shape[2] == c.planner.row_elements(); }},
        {"kv_cache", "block_size",
         [](const LatentCall& c) { return c.cache.shape[1] > 0 && c.cache.shape[1] % kBlockMultiple == 0; }},
        {"kv_cache", "aligned", [](const LatentCall& c) { return aligned(c.cache); }},
    }),
    attention_results<LatentCall>(), attention_pages<LatentCall>());

AttentionArgs arguments(const LatentCall& call) {
  const TensorView &cache = call.cache, &table = call.block_table, &rope = call.query_rope;
  AttentionArgs args = common_arguments(call);
  if (rope.given) {
    args.query.rest = reinterpret_cast<const void*>(rope.data);
    args.query.rest_token_stride = rope.stride[0];
    args.query.rest_head_stride = rope.stride[1];
  }
  args.keys = {.data = reinterpret_cast<const void*>(cache.data),
               .block_table = reinterpret_cast<const int32_t*>(table.data),
               .block_stride = cache.stride[0],
               .head_stride = 0,
               .token_stride = cache.stride[1],
               .table_stride = table.stride[0],
               .block_size = make_fast_div(static_cast<uint32_t>(cache.shape[1])),
               .blocks = static_cast<int32_t>(cache.shape[0])};
  return args;
}

LatentCall latent_call(const AttentionPlanner& planner, const Batch& batch, py::handle query_latent,
                       py::handle query_rope, py::handle kv_cache, py::handle block_table, py::handle seq_lens,
                       py::handle out, py::handle lse, int64_t max_query_len, double scale, py::handle causal) {
  return {{planner, batch, TensorView(query_latent), TensorView(seq_lens), TensorView(out), TensorView(lse),
           max_query_len, scale, causal_of(causal)},
          TensorView(query_rope),
          TensorView(kv_cache),
          TensorView(block_table)};
}

// Requests, tokens, max_query_len and causal of the plan.
Refusal run_latent(AttentionPlanner& planner, Stream stream, int64_t requests, int64_t tokens, int64_t plan_query_len,
                   py::handle plan_causal, py::handle query_latent, py::handle query_rope, py::handle kv_cache,
                   py::handle block_table, py::handle seq_lens, py::handle out, py::handle lse, int64_t max_query_len,
                   double scale, py::handle causal) {
  return run<kLatentConditions>(planner, stream,
                                latent_call(planner, {requests, tokens, plan_query_len, causal_of(plan_causal)},
                                            query_latent, query_rope, kv_cache, block_table, seq_lens, out, lse,
                                            max_query_len, scale, causal));
}

Refusal plan_and_run_latent(AttentionPlanner& planner, Stream stream, py::handle query_start_loc, int64_t tokens,
                            py::handle query_latent, py::handle query_rope, py::handle kv_cache, py::handle block_table,
                            py::handle seq_lens, py::handle out, py::handle lse, int64_t max_query_len, double scale,
                            py::handle causal) {
  const PlanCall to_plan(planner, query_start_loc, seq_lens, tokens, max_query_len, causal, Py_None);
  return plan_and_run<kLatentConditions>(planner, stream, to_plan, [&] {
    return latent_call(planner, to_plan.batch(), query_latent, query_rope, kv_cache, block_table, seq_lens, out, lse,
                       max_query_len, scale, causal);
  });
}

}  // namespace

void bind_latent(py::module_& module) {
  list_conditions(module, "latent_attention", kLatentConditions);
  module.def("run_latent", &run_latent,
             "Launches latent attention by a plan; the name of the condition that fails, if one does.");
  module.def("plan_and_run_latent", &plan_and_run_latent, "The plan and latent attention, or neither.");
}

}  // namespace rocmforge
