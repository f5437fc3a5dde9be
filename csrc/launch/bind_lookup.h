// SPDX-License-Identifier: Apache-2.0
// What a rotation looks up, as Python gives it: positions, and the table of cosines and sines. The tables of conditions
// are as in bind_rows.h.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>

#include "conditions.h"
#include "launch/position.h"
#include "tensor.h"

namespace rocmforge {

// Pairs that take the time, height and width position, as Python has them: None, or three counts.
struct Sections {
  Sections() = default;
  explicit Sections(pybind11::handle object) {
    if (!pybind11::isinstance<pybind11::sequence>(object)) return;
    const auto sequence = pybind11::reinterpret_borrow<pybind11::sequence>(object);
    if (sequence.size() != 3) return;
    for (size_t i = 0; i < 3; ++i) {
      counts[i] = PyLong_AsLongLong(pybind11::object(sequence[i]).ptr());
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

// What a rotation looks up. Positions are [tokens] or, of several axes, [axes, tokens]: of three, which pairs take by
// sections and which may be [tokens] too; of two, one for each half of a head.
struct Lookup {
  TensorView positions, cos_sin_cache;
  int axes;
  Sections sections;
  bool sections_interleaved = false;

  int64_t rotary_dim() const { return cos_sin_cache.shape[1]; }
  PositionMode mode() const {
    if (axes == 2) return PositionMode::kAxes;
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
inline bool has_contiguous_rows(const TensorView& view) { return view.shape[1] < 2 || view.stride[1] == 1; }

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
         return c.lookup.axes == 2 ? 2 * table.shape[1] == c.head_size() : table.shape[1] <= c.head_size();
       }},
      {"cos_sin_cache", "contiguous", [](const Call& c) { return has_contiguous_rows(c.lookup.cos_sin_cache); }},
      {"positions", "tensor", [](const Call& c) { return c.lookup.positions.readable; }},
      {"positions", "dtype", [](const Call& c) { return c.lookup.positions.type == TensorType::kInt64; }},
      {"positions", "device", [](const Call& c) { return c.lookup.positions.device == c.device(); }},
      {"positions", "shape",
       [](const Call& c) {
         const TensorView& positions = c.lookup.positions;
         if (positions.dims == 1) return c.lookup.axes != 2 && positions.shape[0] == c.tokens();
         return positions.dims == 2 && c.lookup.axes > 1 && positions.shape[0] == c.lookup.axes &&
                positions.shape[1] == c.tokens();
       }},
      {"positions", "contiguous",
       [](const Call& c) { return c.tokens() < 2 || c.lookup.positions.last_stride() == 1; }},
  });
}

// The sections of a call whose positions may have three axes, behind its lookups.
template <class Call>
constexpr auto sections() {
  return condition<Call>("mrope_section", "sum", [](const Call& c) {
    return c.lookup.axes != 3 || c.lookup.positions.dims == 1 || c.lookup.sections.add_up_to(c.lookup.rotary_dim() / 2);
  });
}

}  // namespace rocmforge
