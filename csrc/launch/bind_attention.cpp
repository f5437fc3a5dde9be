// SPDX-License-Identifier: Apache-2.0
// Python's view of attention. Every eager layer comes here, so tensors are taken as they are and checked: a call costs
// 1.0 us with that, and 3.7 where Python does it.
#include <pybind11/pybind11.h>

#include <cmath>
#include <numbers>
#include <string>
#include <utility>

#include "bindings.h"
#include "launch/attention.h"
#include "tensor.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

constexpr int64_t kBlockMultiple = 16;

// Rows that start at multiples of 16 bytes, contiguous in their last dimension.
bool aligned(const TensorView& view, int64_t element_bytes) {
  int64_t strides = 0;
  for (int i = 0; i < view.dims - 1; ++i) strides |= view.stride[i];
  return view.stride[view.dims - 1] == 1 && view.data % 16 == 0 && strides * element_bytes % 16 == 0;
}

struct AttentionTensors {
  TensorView query, cache, block_table, seq_lens, out, sinks;
  bool has_sinks = false;
};

bool read_tensors(py::handle query, py::handle cache, py::handle block_table, py::handle seq_lens, py::handle out,
                  py::handle sinks, AttentionTensors& all) {
  all.has_sinks = !sinks.is_none();
  return read_tensor(query, all.query) && read_tensor(cache, all.cache) && read_tensor(block_table, all.block_table) &&
         read_tensor(seq_lens, all.seq_lens) && read_tensor(out, all.out) &&
         (!all.has_sinks || read_tensor(sinks, all.sinks));
}

// The conditions that rocmforge_plugin/ops/attention.py spells out with their messages.
bool fits(const AttentionPlanner& planner, const AttentionTensors& all, int64_t requests) {
  const AttentionLayer& layer = planner.layer();
  const auto& [query, cache, table, seq_lens, out, sinks, has_sinks] = all;
  const auto type = static_cast<TensorType>(layer.element);
  const int64_t heads = int64_t{layer.kv_heads} * layer.group;
  if (query.dims != 3 || cache.dims != 4 || table.dims != 2 || out.dims != 3 || seq_lens.dims != 1) return false;
  for (const TensorView* view : {&query, &cache, &out}) {
    if (view->type != type || view->device != planner.buffers().device ||
        !aligned(*view, element_size(layer.element))) {
      return false;
    }
  }
  if (has_sinks && (sinks.type != TensorType::kFloat || sinks.dims != 1 || sinks.shape[0] != heads ||
                    (heads > 1 && sinks.stride[0] != 1) || sinks.device != query.device)) {
    return false;
  }
  return query.shape[1] == heads && query.shape[2] == layer.head_size && out.shape[0] == query.shape[0] &&
         out.shape[1] == heads && out.shape[2] == layer.head_size && cache.shape[1] == layer.kv_heads &&
         cache.shape[2] > 0 && cache.shape[2] % kBlockMultiple == 0 && cache.shape[3] == 2 * layer.head_size &&
         table.type == TensorType::kInt32 && table.device == query.device && table.shape[0] >= requests &&
         table.stride[1] == 1 && seq_lens.shape[0] == requests;
}

AttentionArgs arguments(const AttentionLayer& layer, const AttentionTensors& all, double scale) {
  const auto& [query, cache, table, seq_lens, out, sinks, has_sinks] = all;
  return {.heads = {make_fast_div(static_cast<uint32_t>(layer.group)), layer.kv_heads},
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
          .mask = {layer.window},
          .softmax = {.sinks = has_sinks ? reinterpret_cast<const float*>(sinks.data) : nullptr,
                      .scale_log2 = static_cast<float>(scale * std::numbers::log2e)},
          .work = {}};
}

bool plan(AttentionPlanner& planner, Stream stream, py::handle query_start, py::handle seq_lens, int64_t tokens,
          int64_t max_query_len) {
  const BatchBounds& bounds = planner.bounds();
  TensorView starts, lengths;
  if (!read_tensor(query_start, starts) || !read_tensor(seq_lens, lengths) || tokens < 0 || tokens > bounds.tokens) {
    return false;
  }
  for (const TensorView* view : {&starts, &lengths}) {
    if (view->type != TensorType::kInt32 || view->device != planner.buffers().device || view->dims != 1 ||
        (view->shape[0] > 1 && view->stride[0] != 1)) {
      return false;
    }
  }
  const int64_t requests = lengths.shape[0];
  if (requests < 1 || requests > bounds.requests || starts.shape[0] != requests + 1) return false;
  ReleaseGil released(planner.device());
  planner.plan(stream, starts.data, lengths.data, requests, tokens, max_query_len);
  return true;
}

bool run(AttentionPlanner& planner, Stream stream, int64_t requests, int64_t plan_query_len, py::handle query,
         py::handle cache, py::handle block_table, py::handle seq_lens, py::handle out, py::handle sinks,
         int64_t max_query_len, double scale, int64_t window) {
  AttentionTensors all;
  if (window != planner.layer().window || !(scale > 0) || !std::isfinite(scale) || max_query_len > plan_query_len ||
      !read_tensors(query, cache, block_table, seq_lens, out, sinks, all) || !fits(planner, all, requests)) {
    return false;
  }
  if (all.query.shape[0] > 0) {
    const AttentionArgs args = arguments(planner.layer(), all, scale);
    ReleaseGil released(planner.device());
    planner.run(stream, plan_query_len, args);
  }
  return true;
}

}  // namespace

void bind_attention(py::module_& module) {
  py::class_<AttentionPlanner>(module, "AttentionPlanner")
      .def(py::init([](Device& device, int element, int head_size, int kv_heads, int group, int window,
                       std::string core, int64_t requests, int64_t tokens, int64_t decode_query_len) {
             return new AttentionPlanner(
                 device, {static_cast<Element>(element), head_size, kv_heads, group, window, std::move(core)},
                 {requests, tokens, decode_query_len});
           }),
           py::keep_alive<1, 2>())
      .def_property_readonly("plan_words", &AttentionPlanner::plan_words)
      .def_property_readonly("workspace_floats", &AttentionPlanner::workspace_floats)
      .def("use_buffers",
           [](AttentionPlanner& planner, uintptr_t plan, uintptr_t workspace, int device) {
             planner.use_buffers(
                 {reinterpret_cast<int32_t*>(plan), reinterpret_cast<float*>(workspace), device});
           })
      .def("plan", &plan, "False, and nothing launched, if an argument is not what the planner takes.")
      .def("run", &run, "False, and nothing launched, if an argument is not what the plan is for or takes.");
}

}  // namespace rocmforge
