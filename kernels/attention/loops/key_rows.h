// SPDX-License-Identifier: Apache-2.0
// The loop over a segment's tiles with keys on the rows of the scores' products and dims on those of the output's
// (mma_sm90_keys.h), for problems whose values are in their keys. Two groups of four waves share the tiles: a group
// multiplies half of the dims for the scores, makes probabilities of half of the queries, which meet in shared memory,
// and accumulates half of the dims. So each key is multiplied once: a product reads 64 rows from shared memory, which
// takes as long for few queries as for many.
#pragma once

#include "../../target/convert.h"
#include "../keys/swizzled.h"
#include "../problem/score.h"
#include "../rows/queries.h"
#include "../rows/results.h"
#include "wave_tiles.h"

namespace rocmforge {

template <class G>
struct KeyRowsLoop {
  using Args = AttentionArgs;
  using R = typename G::R;
  using T = typename G::T;
  using Core = typename G::Mma;
  using C = typename Core::C;
  using Score = typename G::Score;
  using Keys = KeyRowsFeed<G>;

  static constexpr int kRows = G::kBlockRows, kQueryTiles = G::kQueryTiles, kOwnTiles = G::kOwnQueryTiles;
  static constexpr int kTileKeys = G::kTileKeys, kColumns = Core::Rows::kColumns;
  static constexpr int kKeyBlocks = SwizzledStage<G>::kKeyBlocks, kBands = G::D::kBands;
  static constexpr int kKeyWaves = G::kKeyParts;  // of a group: each scores 16 keys
  static_assert(kTileKeys == kColumns && kTileKeys == kKeyWaves * Core::kM && G::kOwnScoreTiles == 1);
  static_assert(!ByDistance<typename G::Score>);
  static_assert(G::Problem::kKeyDims % kColumns == 0 && Core::kWaves == kKeyWaves);
  // Whether a group multiplies half of the dims of all queries, for which groups hand each other sums, or all dims of
  // half of the queries: 64 queries leave neither registers nor shared memory for sums.
  static constexpr bool kHalfDims = kRows < 64;
  using Sums = C[kOwnTiles][kKeyWaves][R::kWave];
  struct Written {
    void* row;
    float scale;
  };
  struct None {};
  struct OwnSums {
    Sums sums[2];  // for each group
  };
  struct alignas(kHostTarget ? 64 : 1024) Shared : SelectType<kHalfDims, OwnSums, None> {
    alignas(kHostTarget ? 64 : 1024) T query[kKeyBlocks][kRows * kColumns];
    T probability[kRows * kColumns];
    union {
      float by_wave[kKeyWaves][kRows];  // of what is common to a row: each wave's
      Written written[kRows];
    };
    SoftmaxState row[kRows];
    float shrink[kRows];
    uint32_t outgrown[G::kWaves];
  };

  struct State {
    C out[kBands][kQueryTiles];
  };

  // Requests the segment's queries, which arrive with its first tile.
  RF_DEVICE static void fetch_queries(const Args& args, const Segment& seg, Shared& shared) {
    constexpr int kChunk = Core::Rows::kChunk, kRowChunks = G::Problem::kKeyDims / kChunk;
    for (int i = thread_index(); i < kRows * kRowChunks; i += G::kThreads) {
      const int row = i / kRowChunks, dim = i % kRowChunks * kChunk;
      const int packed = seg.first_row + row;
      const QueryRow<G> query(args, seg, split_row(args.heads, packed < seg.rows ? packed : seg.first_row));
      copy_async16(shared.query[dim / kColumns] + Core::Rows::chunk_at(row, dim % kColumns), query.at(dim));
    }
  }

  // Takes the segment's tiles, the first of which has been requested.
  RF_DEVICE static void attend(const Args& args, const Segment& seg, Shared& shared, Keys& keys, State& state) {
    Own own;
    C(&out)[kBands][kQueryTiles] = state.out;
    start(args, seg, own, out);
    const WaveTiles wave = wave_tiles<G>(args, seg);
    for (int tile = seg.begin; tile < seg.end; ++tile) {
      keys.wait();
      C scores[kOwnTiles];
      score(shared, keys, scores);
      const int first_key = (seg.first_tile + tile) * kTileKeys + G::key_part() * Core::kM;
      prepare(args, seg, first_key, wave.masked(tile), own, scores);
      weigh(shared, scores, own, out);
      accumulate(shared, keys, out);
      barrier();  // everybody has left the tile
      keys.request();
      keys.next(seg.first_tile + tile + 1);
    }
    keys.finish();
    finish(shared, own);
  }

  // Writes the rows of a segment. What a row needs for that one thread works out.
  RF_DEVICE static void write(const Args& args, const Segment& seg, Shared& shared, const State& state) {
    const int t = thread_index();
    if (t < kRows) {
      const auto result = Results<G>::row_result(args, seg, t, shared.row[t], true);
      if (result.out) shared.written[t] = {result.out, result.scale};
      else shared.written[t] = {result.partial, result.value_scale};
    }
    barrier();
    if (seg.whole()) write_rows<T>(shared, state);
    else write_rows<float>(shared, state);
  }

 private:
  // What a lane holds of the rows that its group scores.
  struct Own {
    SoftmaxState row[kOwnTiles][R::kStats];
    typename Score::Row score[kOwnTiles][R::kStats];
  };

  // The row that a lane's column `stat` of its group's query tile `tile` is.
  RF_DEVICE static int own_row(int tile, int stat) {
    return (G::row_part() * kOwnTiles + tile) * R::kRows + R::stat_query(lane<R::kWave>(), stat);
  }
  // In the hardware's order, columns of a product's registers.
  RF_DEVICE static constexpr int stat_of(int r) { return r % 2; }
  // Whether a lane is the first of those that hold the same columns.
  RF_DEVICE static bool first_of_column() { return lane<R::kWave>() < 4; }

  RF_DEVICE static void start(const Args& args, const Segment& seg, Own& own, C (&out)[kBands][kQueryTiles]) {
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        const int row = seg.first_row + own_row(t, s);
        const Quotient at = split_row(args.heads, row < seg.rows ? row : seg.first_row);
        own.row[t][s] = kNoKeys;
        own.score[t][s] = Score::row(args.softmax, static_cast<int>(query_head(args.heads, seg.head, at)),
                                     seg.context.before + at.quotient);
      }
    }
    RF_UNROLL
    for (auto& band : out) {
      RF_UNROLL
      for (C& tile : band) tile = fill<float, Core::kC>(0.0f);
    }
  }

  RF_DEVICE static void score(Shared& shared, const Keys& keys, C (&scores)[kOwnTiles]) {
    const int group = G::row_part();
    if constexpr (!kHalfDims) {
      multiply<kColumns>(shared.query[0] + group * kOwnTiles * R::kRows * kColumns, 0, keys, scores);
    } else {
      C all[kQueryTiles];
      multiply<kColumns / 2>(shared.query[0], group * (kColumns / 2), keys, all);
      store_sums(shared.sums[group ^ 1], all);
      barrier();
      add_sums(shared.sums[group], all, scores);
    }
  }

  // Queries with the tile's keys in `Dims` dims of each block, from dim `first` of it on.
  template <int Dims, int Tiles>
  RF_DEVICE static void multiply(const T* queries, int first, const Keys& keys, C (&scores)[Tiles]) {
    constexpr int kSteps = Dims / Core::kK;
    Core::begin();
    unrolled<kKeyBlocks * kSteps>([&](auto i) {
      constexpr int kBlock = i / kSteps;
      const int dim = first + i % kSteps * Core::kK;
      Core::template product<false, i == 0>(scores, keys.keys(), kBlock * kTileKeys * kColumns, dim, queries,
                                            kBlock * kRows * kColumns, dim);
    });
    Core::commit();
    Core::wait(scores);
  }

  // To the other group, of its queries; and from it.
  RF_DEVICE static void store_sums(Sums& sums, const C (&all)[kQueryTiles]) {
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t)
      sums[t][G::key_part()][lane<R::kWave>()] = G::row_part() == 0 ? all[kOwnTiles + t] : all[t];
  }
  RF_DEVICE static void add_sums(const Sums& sums, const C (&all)[kQueryTiles], C (&scores)[kOwnTiles]) {
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      const C mine = G::row_part() == 0 ? all[t] : all[kOwnTiles + t];
      scores[t] = add(mine, sums[t][G::key_part()][lane<R::kWave>()]);
    }
  }

  // Products to scores in log2 units, -inf where a row does not see the key.
  RF_DEVICE static void prepare(const Args& args, const Segment& seg, int first_key, bool masked, const Own& own,
                                C (&scores)[kOwnTiles]) {
    const float key_scale = G::Format::key_scale(args.keys, seg.head), factor = Score::factor(args.softmax);
    const int l = lane<R::kWave>();
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int r = 0; r < Core::kC; ++r) {
        const int key = first_key + Core::Base::c_row(l, r);
        scores[t][r] = Score::shape(args.softmax, own.score[t][stat_of(r)], key, scores[t][r] * key_scale) * factor;
      }
    }
    if (!masked) return;
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        // Worked out here, in the few tiles that need it: nothing of it stays in registers.
        const int row = seg.first_row + own_row(t, s);
        const KeySpan seen = row_keys<G>(args, seg, row < seg.rows ? row : seg.first_row);
        RF_UNROLL
        for (int r = s; r < Core::kC; r += R::kStats)
          if (!seen.contains(first_key + Core::Base::c_row(l, r))) scores[t][r] = -__builtin_inff();
      }
    }
  }

  // Scores to probabilities, in shared memory for both groups. The maximum of a row is common to its group's lanes and
  // waves, and moves only when some score has outgrown it.
  RF_DEVICE static void weigh(Shared& shared, const C (&scores)[kOwnTiles], Own& own, C (&out)[kBands][kQueryTiles]) {
    bool outgrown = false;
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int r = 0; r < Core::kC; ++r) outgrown |= scores[t][r] > own.row[t][stat_of(r)].maximum + kMaxLag;
    }
    outgrown = any<R::kWave>(outgrown);
    if (lane<R::kWave>() == 0) shared.outgrown[G::dim_wave()] = outgrown;
    float sum[kOwnTiles][R::kStats];
    exponentiate(shared, scores, own, sum);
    Core::publish();
    barrier();
    uint32_t any_outgrown = 0;
    RF_UNROLL
    for (int w = 0; w < G::kWaves; ++w) any_outgrown |= shared.outgrown[w];
    if (any_outgrown) [[unlikely]] {
      find_maximum(shared, scores, own);
      exponentiate(shared, scores, own, sum);
      Core::publish();
      barrier();
      shrink(shared, out);
    }
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) own.row[t][s].sum += sum[t][s];
    }
  }

  // Probabilities relative to the maximum, and what a lane's add up to.
  RF_DEVICE static void exponentiate(Shared& shared, const C (&scores)[kOwnTiles], const Own& own,
                                     float (&sum)[kOwnTiles][R::kStats]) {
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      C power;
      RF_UNROLL
      for (int r = 0; r < Core::kC; ++r) power[r] = exp2(scores[t][r] - own.row[t][stat_of(r)].maximum);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) sum[t][s] = power[s] + power[R::kStats + s];
      Core::store_transposed(shared.probability, (G::row_part() * kOwnTiles + t) * R::kRows, G::key_part() * Core::kM,
                             power);
    }
  }

  // Moves the maximum of the group's rows, with the sums, and says by how much.
  RF_DEVICE static void find_maximum(Shared& shared, const C (&scores)[kOwnTiles], Own& own) {
    each_own([&](int t, int s, int row) {
      const float top =
          R::reduce(max(scores[t][s], scores[t][R::kStats + s]), [](float a, float b) { return max(a, b); });
      if (first_of_column()) shared.by_wave[G::key_part()][row] = top;
    });
    barrier();
    each_own([&](int t, int s, int row) {
      SoftmaxState& state = own.row[t][s];
      float maximum = state.maximum;
      RF_UNROLL
      for (int w = 0; w < kKeyWaves; ++w) maximum = max(maximum, shared.by_wave[w][row]);
      const float factor = exp2(state.maximum - maximum);
      state = {maximum, state.sum * factor};
      if (first_of_column() && G::key_part() == 0) shared.shrink[row] = factor;
    });
  }

  RF_DEVICE static void shrink(const Shared& shared, C (&out)[kBands][kQueryTiles]) {
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int r = 0; r < Core::kC; ++r) {
        const float factor = shared.shrink[t * R::kRows + R::stat_query(lane<R::kWave>(), stat_of(r))];
        RF_UNROLL
        for (int band = 0; band < kBands; ++band) out[band][t][r] *= factor;
      }
    }
  }

  RF_DEVICE static void accumulate(const Shared& shared, const Keys& keys, C (&out)[kBands][kQueryTiles]) {
    Core::begin();
    unrolled<kBands>([&](auto band) {
      const int block = G::row_part() * kBands + band;
      unrolled<kTileKeys / Core::kK>([&](auto i) {
        Core::template product<true, false>(out[band], keys.keys(), block * kTileKeys * kColumns, i * Core::kK,
                                            shared.probability, 0, i * Core::kK);
      });
    });
    Core::commit();
    RF_UNROLL
    for (auto& band : out) Core::wait(band);
  }

  // The rows' statistics, over all waves of a group.
  RF_DEVICE static void finish(Shared& shared, const Own& own) {
    each_own([&](int t, int s, int row) {
      const float sum = R::reduce(own.row[t][s].sum, [](float a, float b) { return a + b; });
      if (first_of_column()) shared.by_wave[G::key_part()][row] = sum;
    });
    barrier();
    each_own([&](int t, int s, int row) {
      float sum = 0.0f;
      RF_UNROLL
      for (int w = 0; w < kKeyWaves; ++w) sum += shared.by_wave[w][row];
      if (first_of_column() && G::key_part() == 0) shared.row[row] = {own.row[t][s].maximum, sum};
    });
    barrier();
  }

  template <class Element>
  RF_DEVICE static void write_rows(const Shared& shared, const State& state) {
    const int l = lane<R::kWave>();
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        const Written to = shared.written[t * R::kRows + R::stat_query(l, s)];
        if (!to.row) continue;
        RF_UNROLL
        for (int band = 0; band < kBands; ++band) {
          RF_UNROLL
          for (int r = s; r < Core::kC; r += R::kStats)
            static_cast<Element*>(to.row)[G::value_dim(band, Core::Base::c_row(l, r))] =
                from_float<Element>(state.out[band][t][r] * to.scale);
        }
      }
    }
  }

  // Of each row that a lane has a column of, among its group's: f(tile, column, row of the block).
  template <class F>
  RF_DEVICE static void each_own(F&& f) {
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) f(t, s, own_row(t, s));
    }
  }
};

}  // namespace rocmforge
