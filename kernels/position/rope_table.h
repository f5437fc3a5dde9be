// SPDX-License-Identifier: Apache-2.0
// cos and sin of the pairs that a lane rotates.
#pragma once

#include "../index/divide.h"
#include "args.h"

namespace rocmforge {

// Of N pairs, which lie as two runs of half as many (one pair: as one run).
template <int N>
struct CosSin {
  static constexpr int kRuns = N == 1 ? 1 : 2;
  static constexpr int kRun = N / kRuns;
  float cos[N];
  float sin[N];
};

namespace detail {

template <class C, int N>
RF_DEVICE void load_floats(const void* row, int64_t offset, float* out) {
  const auto values = load_vec<C, N>(static_cast<const C*>(row) + offset);
  RF_UNROLL
  for (int i = 0; i < N; ++i) out[i] = to_float(values[i]);
}

RF_DEVICE int64_t table_row(const RopeTable& table, int32_t token, int axis) {
  if (table.mode == PositionMode::kPerToken) return token;
  return table.positions[axis * table.axis_stride + token];
}

// M-RoPE's axis of a pair: 0 t, 1 h, 2 w.
RF_DEVICE int section_axis(const RopeTable& table, int pair) {
  if (table.mode == PositionMode::kSections) return (pair >= table.sections[0]) + (pair >= table.sections[1]);
  const int axis = pair % 3;
  return axis != 0 && pair < table.sections[axis - 1] ? axis : 0;
}

template <class C, int N>
RF_DEVICE void load_row(const RopeTable& table, int64_t row, const int (&first)[2], CosSin<N>& out) {
  constexpr int kRun = CosSin<N>::kRun;
  RF_UNROLL
  for (int run = 0; run < CosSin<N>::kRuns; ++run) {
    load_floats<C, kRun>(table.cos, row * table.cos_stride + first[run], out.cos + run * kRun);
    load_floats<C, kRun>(table.sin, row * table.sin_stride + first[run], out.sin + run * kRun);
  }
}

// Run r holds the pairs first[r], first[r] + 1, ... of part `part`.
template <class C, int N>
RF_DEVICE CosSin<N> load_cos_sin(const RopeTable& table, int32_t token, int part, const int (&first)[2]) {
  CosSin<N> out;
  const bool by_pair = table.mode == PositionMode::kSections || table.mode == PositionMode::kInterleaved;
  load_row<C>(table, table_row(table, token, by_pair ? 0 : part), first, out);
  if (!by_pair) return out;
  // Whole vectors of every axis and a selection: fewer memory instructions than a load per pair.
  for (int axis = 1; axis < 3; ++axis) {
    CosSin<N> other;
    load_row<C>(table, table_row(table, token, axis), first, other);
    RF_UNROLL
    for (int i = 0; i < N; ++i) {
      const int pair = first[i / CosSin<N>::kRun] + i % CosSin<N>::kRun;
      const bool take = section_axis(table, pair) == axis;
      out.cos[i] = take ? other.cos[i] : out.cos[i];
      out.sin[i] = take ? other.sin[i] : out.sin[i];
    }
  }
  return out;
}

}  // namespace detail

// T: the rows' type.
template <class T, int N>
RF_DEVICE CosSin<N> load_cos_sin(const RopeTable& table, int32_t token, int part, const int (&first)[2]) {
  if (table.float_table) return detail::load_cos_sin<float, N>(table, token, part, first);
  return detail::load_cos_sin<T, N>(table, token, part, first);
}

}  // namespace rocmforge
