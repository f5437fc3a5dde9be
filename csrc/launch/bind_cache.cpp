// SPDX-License-Identifier: Apache-2.0
// Python's view of the cache writes.
#include "bindings.h"
#include "launch/bind_rows.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct KvWriteTensors {
  TensorView key, value, kv_cache, slot_mapping;

  TensorType type() const { return key.type; }
  int device() const { return key.device; }
  int64_t tokens() const { return key.shape[0]; }
  int64_t kv_heads() const { return key.shape[1]; }
  int64_t head_size() const { return key.shape[2]; }
};
using Tensors = KvWriteTensors;

constexpr auto kConditions = conditions<Tensors>(
    leads<Tensors, &Tensors::key>("key"),
    std::to_array<Condition<Tensors>>({
        {"key", "shape", [](const Tensors& t) { return t.key.dims == 3 && t.head_size() > 0; }},
        {"key", "contiguous", [](const Tensors& t) { return is_contiguous(t.key, t.head_size()); }},
    }),
    follows<Tensors, &Tensors::value>("value"),
    std::to_array<Condition<Tensors>>({
        {"value", "shape",
         [](const Tensors& t) { return t.value.dims == 3 && std::equal(t.key.shape, t.key.shape + 3, t.value.shape); }},
        {"value", "contiguous", [](const Tensors& t) { return is_contiguous(t.value, t.head_size()); }},
        {"kv_cache", "tensor", [](const Tensors& t) { return t.kv_cache.readable; }},
    }),
    pages<Tensors>());

Refusal kv_write(OpDevice& device, Stream stream, py::handle key, py::handle value, py::handle kv_cache,
                 py::handle slot_mapping) {
  const Tensors tensors{TensorView(key), TensorView(value), TensorView(kv_cache), TensorView(slot_mapping)};
  if (Refusal refusal = first_failed<kConditions>(tensors)) return refusal;
  const int64_t head_size = tensors.head_size();
  const KvWriteCall call{.element = tensors.key.element(),
                         .tokens = tensors.tokens(),
                         .heads = tensors.kv_heads(),
                         .head_size = head_size,
                         .key = rows_of(tensors.key, head_size),
                         .value = rows_of(tensors.value, head_size),
                         .cache = pages_of(tensors)};
  ReleaseGil released(device);
  launch_kv_write(device, stream, call);
  return {};
}

}  // namespace

void bind_cache(py::module_& module) {
  list_conditions(module, "kv_write", kConditions);
  module.def("kv_write", &kv_write);
}

}  // namespace rocmforge
