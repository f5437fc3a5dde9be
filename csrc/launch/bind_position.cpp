// SPDX-License-Identifier: Apache-2.0
// Python's view of the position ops.
#include <cmath>
#include <utility>

#include "bindings.h"
#include "launch/bind_rows.h"
#include "launch/position.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

// Pairs that take the time, height and width position, as Python has them: None, or three counts.
struct Sections {
  explicit Sections(py::handle object) {
    if (!py::isinstance<py::sequence>(object)) return;
    const auto sequence = py::reinterpret_borrow<py::sequence>(object);
    if (sequence.size() != 3) return;
    for (size_t i = 0; i < 3; ++i) {
      counts[i] = PyLong_AsLongLong(py::object(sequence[i]).ptr());
      if (PyErr_Occurred()) {
        PyErr_Clear();
        return;
      }
    }
    given = true;
  }
  bool add_up_to(int64_t pairs) const {
    return given && *std::min_element(counts.begin(), counts.end()) >= 0 && counts[0] + counts[1] + counts[2] == pairs;
  }

  bool given = false;
  std::array<int64_t, 3> counts{};
};

// What a rotation looks up; kAxes rotates each half of a head by itself.
struct Lookup {
  TensorView positions, cos_sin_cache;
  Sections sections;
  bool sections_interleaved;
  bool halves;

  int64_t rotary_dim() const { return cos_sin_cache.shape[1]; }
  PositionMode mode() const {
    if (halves) return PositionMode::kAxes;
    if (positions.dims == 1) return PositionMode::kOne;
    return sections_interleaved ? PositionMode::kInterleaved : PositionMode::kSections;
  }
  std::array<int64_t, 2> section_args() const {
    const auto& [time, height, width] = sections.counts;
    if (mode() == PositionMode::kInterleaved) return {3 * height, 3 * width};
    return {time, time + height};
  }
  RopeView view() const {
    const int64_t stride = cos_sin_cache.shape[0] > 1 ? cos_sin_cache.stride[0] : 0;
    const int64_t half = rotary_dim() / 2 * (cos_sin_cache.type == TensorType::kFloat ? 4 : 2);
    return {.cos = cos_sin_cache.data,
            .sin = cos_sin_cache.data + half,
            .cos_stride = stride,
            .sin_stride = stride,
            .float_table = cos_sin_cache.type == TensorType::kFloat,
            .positions = positions.data,
            .axis_stride = positions.dims == 2 ? positions.stride[0] : 0,
            .sections = section_args(),
            .mode = mode()};
  }
};

// A table of cosines and sines of the rows' type or float.
template <class Call>
bool is_table(const TensorView& view, const Call& call) {
  return view.type == TensorType::kFloat || view.type == call.type();
}
bool has_contiguous_rows(const TensorView& view) { return view.shape[1] < 2 || view.stride[1] == 1; }

// `positions` and `cos_sin_cache` of a call's lookup.
template <class Call>
constexpr auto lookups() {
  return std::to_array<Condition<Call>>({
      {"cos_sin_cache", "tensor", [](const Call& c) { return c.lookup.cos_sin_cache.readable; }},
      {"cos_sin_cache", "dtype", [](const Call& c) { return is_table(c.lookup.cos_sin_cache, c); }},
      {"cos_sin_cache", "device", [](const Call& c) { return c.lookup.cos_sin_cache.device == c.device(); }},
      {"cos_sin_cache", "shape",
       [](const Call& c) {
         const TensorView& table = c.lookup.cos_sin_cache;
         if (table.dims != 2 || table.shape[1] < 2 || table.shape[1] % 2) return false;
         return c.lookup.halves ? 2 * table.shape[1] == c.head_size() : table.shape[1] <= c.head_size();
       }},
      {"cos_sin_cache", "contiguous", [](const Call& c) { return has_contiguous_rows(c.lookup.cos_sin_cache); }},
      {"positions", "tensor", [](const Call& c) { return c.lookup.positions.readable; }},
      {"positions", "dtype", [](const Call& c) { return c.lookup.positions.type == TensorType::kInt64; }},
      {"positions", "device", [](const Call& c) { return c.lookup.positions.device == c.device(); }},
      {"positions", "shape",
       [](const Call& c) {
         const TensorView& positions = c.lookup.positions;
         if (positions.dims == 1) return !c.lookup.halves && positions.shape[0] == c.tokens();
         return positions.dims == 2 && positions.shape[0] == (c.lookup.halves ? 2 : 3) &&
                positions.shape[1] == c.tokens();
       }},
      {"positions", "contiguous",
       [](const Call& c) { return c.tokens() < 2 || c.lookup.positions.last_stride() == 1; }},
      {"mrope_section", "sum",
       [](const Call& c) {
         return c.lookup.halves || c.lookup.positions.dims == 1 ||
                c.lookup.sections.add_up_to(c.lookup.rotary_dim() / 2);
       }},
  });
}

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
    lookups<RotaryTensors>());

Refusal rotary(OpDevice& device, Stream stream, py::handle positions, py::handle query, py::handle key,
               py::handle query_out, py::handle key_out, py::handle cos_sin_cache, int64_t head_size, bool interleaved,
               py::handle mrope_section, bool mrope_interleaved, bool halves) {
  const RotaryTensors tensors{.query = TensorView(query),
                              .key = TensorView(key),
                              .query_out = TensorView(query_out),
                              .key_out = TensorView(key_out),
                              .lookup = {.positions = TensorView(positions),
                                         .cos_sin_cache = TensorView(cos_sin_cache),
                                         .sections = Sections(mrope_section),
                                         .sections_interleaved = mrope_interleaved,
                                         .halves = halves},
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
      pages<Tensors>(), lookups<Tensors>(), norm<&Tensors::query_norm, &Tensors::key_norm>("q_norm_weight"),
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
                                                .sections = Sections(mrope_section),
                                                .sections_interleaved = mrope_interleaved,
                                                .halves = false},
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

}  // namespace

void bind_position(py::module_& module) {
  list_conditions(module, "rotary", kRotaryConditions);
  list_conditions(module, "apply_rotary", kApplyConditions);
  list_conditions(module, "rotary_kv_write", kRotaryKvWriteConditions);
  module.def("rotary", &rotary);
  module.def("apply_rotary", &apply_rotary);
  module.def("rotary_kv_write", &rotary_kv_write);
}

}  // namespace rocmforge
