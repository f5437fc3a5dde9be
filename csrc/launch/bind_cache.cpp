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

constexpr auto kv_write_conditions() {
  using Tensors = KvWriteTensors;
  return conditions<Tensors>(
      leads<Tensors, &Tensors::key>("key"),
      std::to_array<Condition<Tensors>>({
          {"key", "shape", [](const Tensors& t) { return t.key.dims == 3 && t.head_size() > 0; }},
          {"key", "contiguous", [](const Tensors& t) { return is_contiguous(t.key, t.head_size()); }},
      }),
      follows<Tensors, &Tensors::value>("value"),
      std::to_array<Condition<Tensors>>({
          {"value", "shape",
           [](const Tensors& t) {
             return t.value.dims == 3 && std::equal(t.key.shape, t.key.shape + 3, t.value.shape);
           }},
          {"value", "contiguous", [](const Tensors& t) { return is_contiguous(t.value, t.head_size()); }},
          {"kv_cache", "tensor", [](const Tensors& t) { return t.kv_cache.readable; }},
      }),
      pages<Tensors>());
}
constexpr auto kKvWriteConditions = kv_write_conditions();

Refusal kv_write(OpDevice& device, Stream stream, py::handle key, py::handle value, py::handle kv_cache,
                 py::handle slot_mapping) {
  const KvWriteTensors tensors{TensorView(key), TensorView(value), TensorView(kv_cache), TensorView(slot_mapping)};
  if (Refusal refusal = first_failed<kKvWriteConditions>(tensors)) return refusal;
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

struct LatentKvWriteTensors {
  TensorView kv_c, k_rope, kv_cache, slot_mapping;  // k_rope is None where keys have no part that is rotated

  TensorType type() const { return kv_c.type; }
  int device() const { return kv_c.device; }
  int64_t tokens() const { return kv_c.shape[0]; }
  int64_t latent_dims() const { return kv_c.shape[1]; }
  int64_t rope_dims() const { return k_rope.given ? k_rope.last_shape() : 0; }
};

constexpr auto latent_kv_write_conditions() {
  using Tensors = LatentKvWriteTensors;
  return conditions<Tensors>(
      leads<Tensors, &Tensors::kv_c>("kv_c"),
      std::to_array<Condition<Tensors>>({
          {"kv_c", "shape", [](const Tensors& t) { return t.kv_c.dims == 2 && t.latent_dims() > 0; }},
          {"kv_c", "contiguous", [](const Tensors& t) { return has_contiguous_row(t.kv_c); }},
      }),
      follows_if_given<Tensors, &Tensors::k_rope>("k_rope"),
      std::to_array<Condition<Tensors>>({
          {"k_rope", "shape", [](const Tensors& t) { return !t.k_rope.given || is_row(t.k_rope); }},
          {"k_rope", "tokens", [](const Tensors& t) { return !t.k_rope.given || t.k_rope.shape[0] == t.tokens(); }},
          {"k_rope", "contiguous", [](const Tensors& t) { return !t.k_rope.given || has_contiguous_row(t.k_rope); }},
          {"kv_cache", "tensor", [](const Tensors& t) { return t.kv_cache.readable; }},
      }),
      pages<Tensors, has_latent_pages<Tensors>>());
}
constexpr auto kLatentKvWriteConditions = latent_kv_write_conditions();

Refusal latent_kv_write(OpDevice& device, Stream stream, py::handle kv_c, py::handle k_rope, py::handle kv_cache,
                        py::handle slot_mapping) {
  const LatentKvWriteTensors tensors{TensorView(kv_c), TensorView(k_rope), TensorView(kv_cache),
                                     TensorView(slot_mapping)};
  if (Refusal refusal = first_failed<kLatentKvWriteConditions>(tensors)) return refusal;
  const LatentKvWriteCall call{.element = tensors.kv_c.element(),
                               .tokens = tensors.tokens(),
                               .latent_dims = tensors.latent_dims(),
                               .rope_dims = tensors.rope_dims(),
                               .latent = row_of(tensors.kv_c),
                               .rope = row_of(tensors.k_rope),
                               .cache = pages_of(tensors)};
  ReleaseGil released(device);
  launch_latent_kv_write(device, stream, call);
  return {};
}

}  // namespace

void bind_cache(py::module_& module) {
  list_conditions(module, "kv_write", kKvWriteConditions);
  list_conditions(module, "latent_kv_write", kLatentKvWriteConditions);
  module.def("kv_write", &kv_write);
  module.def("latent_kv_write", &latent_kv_write);
}

}  // namespace rocmforge
