// SPDX-License-Identifier: Apache-2.0
// What becomes of a segment's rows: the result if the segment is a whole item, else a partial that ../combine.h joins.
#pragma once

#include "../../target/unrolled.h"
#include "../geometry.h"
#include "../schedule/segments.h"

namespace rocmforge {

template <class G>
struct Results {
  using R = typename G::R;
  using T = typename G::T;
  using D = typename G::D;
  using State = typename G::State;
  using Args = AttentionArgs;
  static constexpr int kQueryTiles = G::kQueryTiles;

  // The waves' outputs meet here, a band of one query tile and a few registers of it at a time, already
  // in the order of the lanes that need them.
  static constexpr int kMergeRegisters = 128 / R::kWave;
  struct Merge {
    float out[G::kKeyWaves][8 * kMergeRegisters][R::kWave];
    SoftmaxState stats[G::kKeyWaves][kQueryTiles][R::kStats][R::kWave];
  };

  // Writes the rows of a segment: `merge` is shared memory that nothing else uses meanwhile.
  RF_DEVICE static void write(const Args& earlier, const Segment& seg, Merge& merge, State& state) {
    const Args& args = reload_args(earlier);
    add_up(state);
    if constexpr (G::kKeyWaves > 1) {
      barrier();  // the last reads of shared memory are done
      merge_waves(args, seg, merge, state);
      barrier();
    } else {
      write_alone(args, seg, state);
    }
  }

  // Sums of rows over their lanes.
  RF_DEVICE static void add_up(State& state) {
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s)
        state.row[t][s].sum = R::reduce(state.row[t][s].sum, [](float a, float b) { return a + b; });
    }
  }

  // Of waves that have all keys of their rows.
  RF_DEVICE static void write_alone(const Args& args, const Segment& seg, const State& state) {
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RowResult row[R::kStats];
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s)
        row[s] = row_result(args, seg, G::lane_row(t, s), state.row[t][s], holds_stats());
      unrolled<D::kBands>([&](auto band) {
        // Consecutive dims lie in consecutive tiles, or in consecutive registers of one.
        constexpr bool kAcross = D::width(band) > 1;
        constexpr int kWidth = kAcross ? D::width(band) : R::kRunRegisters;
        RF_UNROLL
        for (int r = 0; r < R::kScores; r += kAcross ? 1 : kWidth) {
          Vec<float, kWidth> run;
          RF_UNROLL
          for (int j = 0; j < kWidth; ++j)
            run[j] = state.out[t][D::first_tile(band) + (kAcross ? j : 0)][kAcross ? r : r + j];
          write_run<band>(row[R::stat(r)], r, run);
        }
      });
    }
  }

  // Where a row's dims go, the result if the segment is a whole item, else a partial; nowhere if there is no such row.
  struct RowResult {
    T* out = nullptr;
    float* partial = nullptr;
    float scale;  // of a result
    float value_scale;  // of a partial
    int dims;  // of a result, where the format is narrow
  };

  // Of a row, whose statistics `writes_stats` has the caller write, one of those that come here.
  RF_DEVICE static RowResult row_result(const Args& args, const Segment& seg, int block_row, SoftmaxState row,
                                        bool writes_stats) {
    RowResult result;
    result.value_scale = G::Format::value_scale(args.keys, seg.head);
    if constexpr (G::Format::kNarrow) result.dims = args.out.dims;
    if (seg.first_row + block_row >= seg.rows) return result;
    if (!seg.whole()) {
      const int64_t at = int64_t{seg.place} * G::kBlockRows + block_row;
      result.partial = args.work.partial_out + at * G::Problem::kValueDims;
      if (writes_stats) store_vec(args.work.partial_stats + at * 2, Vec<float, 2>{{row.maximum, row.sum}});
      return result;
    }
    const Quotient at = split_row(args.heads, seg.first_row + block_row);
    const int64_t head = query_head(args.heads, seg.head, at), token = seg.context.first_token + at.quotient;
    result.out = static_cast<T*>(args.out.data) + token * args.out.token_stride + head * args.out.head_stride;
    const float sink = args.softmax.sinks ? args.softmax.sinks[head] * kLog2E : kNoScore;
    result.scale = final_scale(row, sink) * result.value_scale;
    if (args.lse.data && writes_stats)
      args.lse.data[head * args.lse.head_stride + token * args.lse.token_stride] = log_sum(row, sink);
    return result;
  }

  // Of the lanes that have a row's statistics, one.
  RF_DEVICE static bool holds_stats() { return R::key(lane<R::kWave>(), 0) == 0 && G::first_of_row(); }

 private:
  // Key waves hold the same rows over different keys: each takes its share of the output registers, sums all waves'
  // copies of them, and writes.
  RF_DEVICE static void merge_waves(const Args& args, const Segment& seg, Merge& merged, State& state) {
    static_assert(G::kRowWaves == 1);
    const int l = lane<R::kWave>();
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) merged.stats[G::key_wave()][t][s][l] = state.row[t][s];
    }
    barrier();
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RowResult row[R::kStats];
      float mine[R::kStats];
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        SoftmaxState total = kNoKeys;
        for (int w = 0; w < G::kKeyWaves; ++w) total = merge(total, merged.stats[w][t][s][l]);
        mine[s] = exp2(state.row[t][s].maximum - total.maximum);
        row[s] = row_result(args, seg, G::lane_row(t, s), total, holds_stats());
      }
      unrolled<D::kBands>([&](auto band) {
        constexpr int kWidth = D::width(band);
        unrolled<R::kScores / kMergeRegisters>([&](auto pass) {
          RF_UNROLL
          for (int i = 0; i < kMergeRegisters; ++i) {
            const int r = pass * kMergeRegisters + i;
            RF_UNROLL
            for (int j = 0; j < kWidth; ++j)
              merged.out[G::key_wave()][i * kWidth + j][l] =
                  state.out[t][D::first_tile(band) + j][r] * mine[R::stat(r)];
          }
          barrier();
          RF_UNROLL
          for (int i = 0; i < kMergeRegisters; ++i) {
            if (i != G::key_wave()) continue;
            const int r = pass * kMergeRegisters + i;
            Vec<float, kWidth> run = fill<float, kWidth>(0.0f);
            for (int w = 0; w < G::kKeyWaves; ++w) {
              RF_UNROLL
              for (int j = 0; j < kWidth; ++j) run[j] += merged.out[w][i * kWidth + j][l];
            }
            write_run<band>(row[R::stat(r)], r, run);
          }
          barrier();
        });
      });
    }
  }

  // Writes a run of a row's consecutive dims, of which register r holds the first.
  template <int Band, int Width>
  RF_DEVICE static void write_run(const RowResult& row, int r, const Vec<float, Width>& run) {
    const int dim = G::value_dim(Band, R::key(lane<R::kWave>(), r));
    if (row.partial) {
      Vec<float, Width> partial;
      RF_UNROLL
      for (int j = 0; j < Width; ++j) partial[j] = run[j] * row.value_scale;
      store_vec(row.partial + dim, partial);
    }
    if (!row.out || (G::Format::kNarrow && dim >= row.dims)) return;
    Vec<T, Width> out;
    RF_UNROLL
    for (int j = 0; j < Width; ++j) out[j] = from_float<T>(run[j] * row.scale);
    store_vec(row.out + dim, out);
  }
};

}  // namespace rocmforge
