// SPDX-License-Identifier: Apache-2.0
// Python's view of the position ops.
#include <cmath>
#include <utility>

#include "bindings.h"
#include "launch/bind_lookup.h"
#include "launch/bind_rows.h"
#include "launch/position.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct RotaryTensors {
  TensorView query, key, query_out, key_out;  // the last two are None where the first are written
  Lookup lookup;
  int64_t size_of_head;

  TensorType type() const { return query.type; }
  int device() const { return query.device; }
  int64_t tokens() const { return query.shape[0]; }
  int64_t head_size() const { return size_of_head; }
};

constexpr auto kRotaryConditions = conditions<RotaryTensors>(
    leads<RotaryTensors, &RotaryTensors::query>("query"),
    condition<RotaryTensors>("head_size", "least", [](const RotaryTensors& t) { return t.size_of_head > 0; }),
    rows<RotaryTensors, &RotaryTensors::query>("query"),
    condition<RotaryTensors>("query", "own",
                             [](const RotaryTensors& t) { return t.query_out.given || is_own(t.query); }),
    follows_if_given<RotaryTensors, &RotaryTensors::key>("key"), rows_alike<RotaryTensors, &RotaryTensors::key>("key"),
    condition<RotaryTensors>("key", "own",
                             [](const RotaryTensors& t) { return !t.key.given || t.key_out.given || is_own(t.key); }),
    // These are made for the call, like query and key.
    condition<RotaryTensors>("query_out", "tensor",
                             [](const RotaryTensors& t) { return !t.query_out.given || t.query_out.readable; }),
    condition<RotaryTensors>("key_out", "tensor",
                             [](const RotaryTensors& t) { return !t.key_out.given || t.key_out.readable; }),
    lookups<RotaryTensors>(), sections<RotaryTensors>());

Refusal rotary(OpDevice& device, Stream stream, py::handle positions, py::handle query, py::handle key,
               py::handle query_out, py::handle key_out, py::handle cos_sin_cache, int64_t head_size, bool interleaved,
               py::handle mrope_section, bool mrope_interleaved, bool halves) {
  const RotaryTensors tensors{.query = TensorView(query),
                              .key = TensorView(key),
                              .query_out = TensorView(query_out),
                              .key_out = TensorView(key_out),
                              .lookup = {.positions = TensorView(positions),
                                         .cos_sin_cache = TensorView(cos_sin_cache),
                                         .axes = halves ? 2 : 3,
                                         .sections = Sections(mrope_section),
                                         .sections_interleaved = mrope_interleaved},
                              .size_of_head = head_size};
  if (Refusal refusal = first_failed<kRotaryConditions>(tensors)) return refusal;
  const TensorView& to = tensors.query_out.given ? tensors.query_out : tensors.query;
  const TensorView& key_to = tensors.key_out.given ? tensors.key_out : tensors.key;
  const RotaryCall call{.element = tensors.query.element(),
                        .tokens = tensors.tokens(),
                        .query_heads = heads_of(tensors.query, head_size),
                        .key_heads = tensors.key.given ? heads_of(tensors.key, head_size) : 0,
                        .shape = {head_size, tensors.lookup.rotary_dim(), interleaved},
                        .table = tensors.lookup.view(),
                        .query = rows_of(tensors.query, head_size),
                        .query_out = rows_of(to, head_size),
                        .key = rows_of(tensors.key, head_size),
                        .key_out = rows_of(key_to, head_size),
                        .sequence = std::max<int64_t>(tensors.tokens(), 1),
                        .query_batch_stride = 0,
                        .query_out_batch_stride = 0};
  ReleaseGil released(device);
  launch_rotary(device, stream, call);
  return {};
}

struct ApplyTensors {
  TensorView x, cos, sin, out;  // x [sequence, heads, head_size], or with a batch before it

  TensorType type() const { return x.type; }
  int device() const { return x.device; }
  int64_t batch() const { return x.dims == 4 ? x.shape[0] : 1; }
  int64_t sequence() const { return x.shape[x.dims - 3]; }
  int64_t heads() const { return x.shape[x.dims - 2]; }
  int64_t head_size() const { return x.last_shape(); }
  RowsView rows(const TensorView& view) const {
    const int64_t* stride = view.stride + view.dims - 3;
    return {view.data, sequence() > 1 ? stride[0] : 0, heads() > 1 ? stride[1] : 0};
  }
  int64_t batch_stride(const TensorView& view) const { return batch() > 1 ? view.stride[0] : 0; }
};

template <TensorView ApplyTensors::* kTable>
constexpr auto per_token(const char* argument) {
  using Tensors = ApplyTensors;
  return std::to_array<Condition<Tensors>>({
      {argument, "tensor", [](const Tensors& t) { return (t.*kTable).readable; }},
      {argument, "dtype", [](const Tensors& t) { return is_table(t.*kTable, t); }},
      {argument, "device", [](const Tensors& t) { return (t.*kTable).device == t.device(); }},
      {argument, "shape",
       [](const Tensors& t) {
         const TensorView& table = t.*kTable;
         return table.dims == 2 && table.shape[0] == t.sequence() && table.shape[1] > 0 &&
                2 * table.shape[1] <= t.head_size();
       }},
      {argument, "contiguous", [](const Tensors& t) { return has_contiguous_rows(t.*kTable); }},
  });
}

constexpr auto kApplyConditions = conditions<ApplyTensors>(
    leads<ApplyTensors, &ApplyTensors::x>("x"),
    std::to_array<Condition<ApplyTensors>>({
        {"x", "shape", [](const ApplyTensors& t) { return (t.x.dims == 3 || t.x.dims == 4) && t.head_size() > 0; }},
        {"x", "contiguous",
         [](const ApplyTensors& t) { return t.x.last_stride() == 1 || t.head_size() == 1 || size_of(t.x) == 0; }},
    }),
    per_token<&ApplyTensors::cos>("cos"), per_token<&ApplyTensors::sin>("sin"),
    std::to_array<Condition<ApplyTensors>>({
        {"sin", "like_cos",
         [](const ApplyTensors& t) { return t.sin.type == t.cos.type && t.sin.shape[1] == t.cos.shape[1]; }},
    }),
    // Made for the call, like x.
    condition<ApplyTensors>("out", "tensor", [](const ApplyTensors& t) { return t.out.readable; }));

Refusal apply_rotary(OpDevice& device, Stream stream, py::handle x, py::handle cos, py::handle sin, py::handle out,
                     bool interleaved) {
  const ApplyTensors tensors{TensorView(x), TensorView(cos), TensorView(sin), TensorView(out)};
  if (Refusal refusal = first_failed<kApplyConditions>(tensors)) return refusal;
  if (size_of(tensors.x) == 0) return {};
  const bool several = tensors.sequence() > 1;
  const RotaryCall call{.element = tensors.x.element(),
                        .tokens = tensors.batch() * tensors.sequence(),
                        .query_heads = tensors.heads(),
                        .key_heads = 0,
                        .shape = {tensors.head_size(), 2 * tensors.cos.shape[1], interleaved},
                        .table = {.cos = tensors.cos.data,
                                  .sin = tensors.sin.data,
                                  .cos_stride = several ? tensors.cos.stride[0] : 0,
                                  .sin_stride = several ? tensors.sin.stride[0] : 0,
                                  .float_table = tensors.cos.type == TensorType::kFloat,
                                  .mode = PositionMode::kPerToken},
                        .query = tensors.rows(tensors.x),
                        .query_out = tensors.rows(tensors.out),
                        .key = {},
                        .key_out = {},
                        .sequence = tensors.sequence(),
                        .query_batch_stride = tensors.batch_stride(tensors.x),
                        .query_out_batch_stride = tensors.batch_stride(tensors.out)};
  ReleaseGil released(device);
  launch_rotary(device, stream, call);
  return {};
}

struct RotaryKvWriteTensors {
  TensorView query, key, value, kv_cache, slot_mapping, query_norm, key_norm, query_out;
  Lookup lookup;
  double epsilon;

  TensorType type() const { return query.type; }
  int device() const { return query.device; }
  int64_t tokens() const { return query.shape[0]; }
  int64_t head_size() const { return kv_cache.shape[3] / 2; }
  int64_t kv_heads() const { return heads_of(key, head_size()); }
};

template <TensorView RotaryKvWriteTensors::* kWeight, TensorView RotaryKvWriteTensors::* kOther>
constexpr auto norm(const char* argument) {
  using Tensors = RotaryKvWriteTensors;
  return conditions<Tensors>(
      condition<Tensors>(argument, "pair", [](const Tensors& t) { return (t.*kWeight).given || !(t.*kOther).given; }),
      follows_if_given<Tensors, kWeight>(argument),
      condition<Tensors>(argument, "shape", if_given<Tensors, kWeight, [](const TensorView& view, const Tensors& t) {
                           return view.dims == 1 && view.shape[0] == t.head_size() &&
                                  (view.stride[0] == 1 || t.head_size() == 1);
                         }>));
}

constexpr auto rotary_kv_write_conditions() {
  using Tensors = RotaryKvWriteTensors;
  return conditions<Tensors>(
      condition<Tensors>("kv_cache", "tensor", [](const Tensors& t) { return t.kv_cache.readable; }),
      condition<Tensors>("kv_cache", "dims",
                         [](const Tensors& t) {
                           return t.kv_cache.dims == 4 && t.kv_cache.shape[3] >= 2 && t.kv_cache.shape[3] % 2 == 0;
                         }),
      leads<Tensors, &Tensors::query>("query"), rows<Tensors, &Tensors::query>("query"),
      condition<Tensors>("query", "own", [](const Tensors& t) { return t.query_out.given || is_own(t.query); }),
      follows<Tensors, &Tensors::key>("key"), rows_alike<Tensors, &Tensors::key>("key"),
      follows<Tensors, &Tensors::value>("value"), rows_alike<Tensors, &Tensors::value>("value"),
      condition<Tensors>("value", "heads",
                         [](const Tensors& t) { return heads_of(t.value, t.head_size()) == t.kv_heads(); }),
      follows_if_given<Tensors, &Tensors::query_out>("query_out"),
      rows_alike<Tensors, &Tensors::query_out>("query_out"),
      condition<Tensors>("query_out", "heads",
                         if_given<Tensors, &Tensors::query_out,
                                  [](const TensorView& view, const Tensors& t) {
                                    return heads_of(view, t.head_size()) == heads_of(t.query, t.head_size());
                                  }>),
      condition<Tensors>(
          "query_out", "own",
          if_given<Tensors, &Tensors::query_out, [](const TensorView& view, const Tensors&) { return is_own(view); }>),
      pages<Tensors>(), lookups<Tensors>(), sections<Tensors>(),
      norm<&Tensors::query_norm, &Tensors::key_norm>("q_norm_weight"),
      norm<&Tensors::key_norm, &Tensors::query_norm>("k_norm_weight"),
      condition<Tensors>("eps", "range", [](const Tensors& t) { return t.epsilon >= 0 && std::isfinite(t.epsilon); }));
}
constexpr auto kRotaryKvWriteConditions = rotary_kv_write_conditions();

Refusal rotary_kv_write(OpDevice& device, Stream stream, py::handle positions, py::handle query, py::handle key,
                        py::handle value, py::handle cos_sin_cache, py::handle kv_cache, py::handle slot_mapping,
                        bool interleaved, py::handle mrope_section, bool mrope_interleaved, py::handle q_norm_weight,
                        py::handle k_norm_weight, double eps, py::handle query_out) {
  const RotaryKvWriteTensors tensors{.query = TensorView(query),
                                     .key = TensorView(key),
                                     .value = TensorView(value),
                                     .kv_cache = TensorView(kv_cache),
                                     .slot_mapping = TensorView(slot_mapping),
                                     .query_norm = TensorView(q_norm_weight),
                                     .key_norm = TensorView(k_norm_weight),
                                     .query_out = TensorView(query_out),
                                     .lookup = {.positions = TensorView(positions),
                                                .cos_sin_cache = TensorView(cos_sin_cache),
                                                .axes = 3,
                                                .sections = Sections(mrope_section),
                                                .sections_interleaved = mrope_interleaved},
                                     .epsilon = eps};
  if (Refusal refusal = first_failed<kRotaryKvWriteConditions>(tensors)) return refusal;
  const int64_t head_size = tensors.head_size();
  const RotaryKvWriteCall call{.element = tensors.query.element(),
                               .tokens = tensors.tokens(),
                               .query_heads = heads_of(tensors.query, head_size),
                               .kv_heads = tensors.kv_heads(),
                               .shape = {head_size, tensors.lookup.rotary_dim(), interleaved},
                               .table = tensors.lookup.view(),
                               .query = rows_of(tensors.query, head_size),
                               .query_out =
                                   rows_of(tensors.query_out.given ? tensors.query_out : tensors.query, head_size),
                               .key = rows_of(tensors.key, head_size),
                               .value = rows_of(tensors.value, head_size),
                               .cache = pages_of(tensors),
                               .query_weight = tensors.query_norm.data,
                               .key_weight = tensors.key_norm.data,
                               .epsilon = eps};
  ReleaseGil released(device);
  launch_rotary_kv_write(device, stream, call);
  return {};
}

struct RotaryLatentKvWriteTensors {
  TensorView query_rope, k_rope, kv_c, kv_cache, slot_mapping;
  Lookup lookup;

  TensorType type() const { return query_rope.type; }
  int device() const { return query_rope.device; }
  int64_t tokens() const { return query_rope.shape[0]; }
  int64_t head_size() const { return rope_dims(); }
  int64_t rope_dims() const { return query_rope.shape[2]; }
  int64_t latent_dims() const { return kv_c.shape[1]; }
};

constexpr auto rotary_latent_kv_write_conditions() {
  using Tensors = RotaryLatentKvWriteTensors;
  return conditions<Tensors>(
      leads<Tensors, &Tensors::query_rope>("query_rope"),
      std::to_array<Condition<Tensors>>({
          {"query_rope", "shape", [](const Tensors& t) { return t.query_rope.dims == 3 && t.rope_dims() > 0; }},
          {"query_rope", "contiguous", [](const Tensors& t) { return is_contiguous(t.query_rope, t.rope_dims()); }},
          {"query_rope", "own", [](const Tensors& t) { return is_own(t.query_rope); }},
      }),
      follows<Tensors, &Tensors::k_rope>("k_rope"),
      std::to_array<Condition<Tensors>>({
          {"k_rope", "shape",
           [](const Tensors& t) { return is_row(t.k_rope) && t.k_rope.last_shape() == t.rope_dims(); }},
          {"k_rope", "tokens", [](const Tensors& t) { return t.k_rope.shape[0] == t.tokens(); }},
          {"k_rope", "contiguous", [](const Tensors& t) { return has_contiguous_row(t.k_rope); }},
          {"k_rope", "own", [](const Tensors& t) { return is_own(t.k_rope); }},
      }),
      follows<Tensors, &Tensors::kv_c>("kv_c"),
      std::to_array<Condition<Tensors>>({
          {"kv_c", "shape", [](const Tensors& t) { return t.kv_c.dims == 2 && t.latent_dims() > 0; }},
          {"kv_c", "tokens", [](const Tensors& t) { return t.kv_c.shape[0] == t.tokens(); }},
          {"kv_c", "contiguous", [](const Tensors& t) { return has_contiguous_row(t.kv_c); }},
          {"kv_cache", "tensor", [](const Tensors& t) { return t.kv_cache.readable; }},
      }),
      pages<Tensors, has_latent_pages<Tensors>>(), lookups<Tensors>());
}
constexpr auto kRotaryLatentKvWriteConditions = rotary_latent_kv_write_conditions();

Refusal rotary_latent_kv_write(OpDevice& device, Stream stream, py::handle positions, py::handle query_rope,
                               py::handle k_rope, py::handle cos_sin_cache, py::handle kv_c, py::handle kv_cache,
                               py::handle slot_mapping, bool interleaved) {
  const RotaryLatentKvWriteTensors tensors{
      .query_rope = TensorView(query_rope),
      .k_rope = TensorView(k_rope),
      .kv_c = TensorView(kv_c),
      .kv_cache = TensorView(kv_cache),
      .slot_mapping = TensorView(slot_mapping),
      .lookup = {
          .positions = TensorView(positions), .cos_sin_cache = TensorView(cos_sin_cache), .axes = 1, .sections = {}}};
  if (Refusal refusal = first_failed<kRotaryLatentKvWriteConditions>(tensors)) return refusal;
  const RotaryLatentKvWriteCall call{.element = tensors.query_rope.element(),
                                     .tokens = tensors.tokens(),
                                     .query_heads = tensors.query_rope.shape[1],
                                     .latent_dims = tensors.latent_dims(),
                                     .shape = {tensors.rope_dims(), tensors.lookup.rotary_dim(), interleaved},
                                     .table = tensors.lookup.view(),
                                     .query = rows_of(tensors.query_rope, tensors.rope_dims()),
                                     .key = row_of(tensors.k_rope),
                                     .latent = row_of(tensors.kv_c),
                                     .cache = pages_of(tensors)};
  ReleaseGil released(device);
  launch_rotary_latent_kv_write(device, stream, call);
  return {};
}

}  // namespace

void bind_position(py::module_& module) {
  list_conditions(module, "rotary", kRotaryConditions);
  list_conditions(module, "apply_rotary", kApplyConditions);
  list_conditions(module, "rotary_kv_write", kRotaryKvWriteConditions);
  list_conditions(module, "rotary_latent_kv_write", kRotaryLatentKvWriteConditions);
  module.def("rotary", &rotary);
  module.def("apply_rotary", &apply_rotary);
  module.def("rotary_kv_write", &rotary_kv_write);
  module.def("rotary_latent_kv_write", &rotary_latent_kv_write);
}

}  // namespace rocmforge
