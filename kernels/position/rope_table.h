// SPDX-License-Identifier: Apache-2.0
// cos and sin of the pairs that a lane rotates.
#pragma once

#include "../division/divide.h"
#include "../target/words.h"
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

// The table row that a token takes, for the head's first part and M-RoPE's first axis.
struct TokenRow {
  int32_t token;
  int64_t row;
};

namespace detail {

template <class C, int N>
RF_DEVICE void load_floats(const void* row, int64_t offset, float* out) {
  const auto values = load_words<C, N>(static_cast<const C*>(row) + offset);
  RF_UNROLL
  for (int i = 0; i < N; ++i) out[i] = float_at(values, i);
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

template <class C, int N, bool kSections>
RF_DEVICE CosSin<N> load_cos_sin(const RopeTable& table, const TokenRow& at, int part, const int (&first)[2]) {
  CosSin<N> out;
  load_row<C>(table, part == 0 ? at.row : table.positions[table.axis_stride + at.token], first, out);
  if constexpr (kSections) {
    // Whole vectors of every axis and a selection: fewer memory instructions than a load per pair.
    RF_UNROLL
    for (int axis = 1; axis < 3; ++axis) {
      CosSin<N> other;
      load_row<C>(table, table.positions[axis * table.axis_stride + at.token], first, other);
      RF_UNROLL
      for (int i = 0; i < N; ++i) {
        const int pair = first[i / CosSin<N>::kRun] + i % CosSin<N>::kRun;
        const bool take = section_axis(table, pair) == axis;
        out.cos[i] = take ? other.cos[i] : out.cos[i];
        out.sin[i] = take ? other.sin[i] : out.sin[i];
      }
    }
  }
  return out;
}

}  // namespace detail

// Looked up before anything else, since the table's values wait for it.
RF_DEVICE TokenRow token_table_row(const RopeTable& table, int32_t token) {
  return {token, table.mode == PositionMode::kPerToken ? token : table.positions[token]};
}

// Run r holds the pairs first[r], first[r] + 1, ... of part `part`. T: the rows' type. kSections: the mode is one of
// M-RoPE's; it is known to the compiler because its registers would halve the other modes' occupancy.
template <class T, int N, bool kSections>
RF_DEVICE CosSin<N> load_cos_sin(const RopeTable& table, const TokenRow& at, int part, const int (&first)[2]) {
  if (table.float_table) return detail::load_cos_sin<float, N, kSections>(table, at, part, first);
  return detail::load_cos_sin<T, N, kSections>(table, at, part, first);
}

}  // namespace rocmforge
