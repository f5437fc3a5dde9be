// SPDX-License-Identifier: Apache-2.0
// The loop over a segment's tiles with keys on the rows of the scores' products and dims on those of the output's
// (mma_sm90_keys.h), for problems whose values are in their keys. Two groups of four waves share the tiles: a group
// multiplies half of the dims for the scores, makes probabilities of half of the queries, which meet in shared memory,
// and accumulates half of the dims. So a tile's keys are multiplied once: products read 64 rows from shared memory, and
// take 32 clocks for that with however few queries.
#pragma once

#include "../../target/convert.h"
#include "../keys/swizzled.h"
#include "../rows/queries.h"
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
  using State = typename G::State;

  static constexpr int kRows = G::kBlockRows, kQueryTiles = G::kQueryTiles, kOwnTiles = G::kOwnQueryTiles;
  static constexpr int kTileKeys = G::kTileKeys, kColumns = Core::Rows::kColumns;
  static constexpr int kKeyBlocks = SwizzledStage<G>::kKeyBlocks, kBands = G::D::kBands;
  static constexpr int kKeyWaves = G::kKeyParts;  // of a group: each scores 16 keys
  static_assert(kTileKeys == kColumns && kTileKeys == kKeyWaves * Core::kM && G::kOwnScoreTiles == 1);
  static_assert(G::Problem::kKeyDims % kColumns == 0 && Core::kWaves == kKeyWaves);
  // Groups hand each other sums over their dims: at once, or where shared memory is short in turn, where probabilities
  // go later.
  static constexpr bool kInTurn = kRows == 64;
  using Sums = C[kOwnTiles][kKeyWaves][R::kWave];
  static_assert(sizeof(Sums) == sizeof(T) * kRows * kColumns);

  struct None {};
  struct OwnSums {
    Sums sums[2];  // for each group
  };
  struct alignas(kHostTarget ? 64 : 1024) Shared : SelectType<kInTurn, None, OwnSums> {
    alignas(kHostTarget ? 64 : 1024) T query[kKeyBlocks][kRows * kColumns];
    T probability[kRows * kColumns];
    float by_wave[kKeyWaves][kRows];  // of what is common to a row: each wave's
    SoftmaxState row[kRows];
    float shrink[kRows];
    uint32_t outgrown[G::kWaves];
  };

  // Takes the segment's tiles, the first of which has been requested.
  RF_DEVICE static void attend(const Args& args, const Segment& seg, Shared& shared, Keys& keys, State& state) {
    Own own;
    C out[kBands][kQueryTiles];
    start(args, seg, shared, own, out);
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
    finish(shared, own, out, state);
  }

 private:
  // What a lane holds of the rows that its group scores.
  struct Own {
    SoftmaxState row[kOwnTiles][R::kStats];
    int token[kOwnTiles][R::kStats];
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

  RF_DEVICE static void start(const Args& args, const Segment& seg, Shared& shared, Own& own,
                              C (&out)[kBands][kQueryTiles]) {
    constexpr int kChunk = Core::Rows::kChunk, kRowChunks = G::Problem::kKeyDims / kChunk;
    for (int i = thread_index(); i < kRows * kRowChunks; i += G::kThreads) {
      const int row = i / kRowChunks, dim = i % kRowChunks * kChunk;
      const int packed = seg.first_row + row;
      const QueryRow<G> query(args, seg, split_row(args.heads, packed < seg.rows ? packed : seg.first_row));
      T* const to = shared.query[dim / kColumns] + Core::Rows::chunk_at(row, dim % kColumns);
      store_words(to, load_words<T, kChunk>(query.at(dim)));
    }
    Core::publish();  // before the barrier of the first tile
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        const int row = seg.first_row + own_row(t, s);
        const Quotient at = split_row(args.heads, row < seg.rows ? row : seg.first_row);
        own.row[t][s] = kNoKeys;
        own.token[t][s] = at.quotient;
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

  // A group multiplies half of each block of dims, and gets from the other what it has of its queries.
  RF_DEVICE static void score(Shared& shared, const Keys& keys, C (&scores)[kOwnTiles]) {
    constexpr int kHalf = kColumns / 2, kSteps = kHalf / Core::kK;
    const int group = G::row_part();
    C all[kQueryTiles];
    Core::begin();
    unrolled<kKeyBlocks * kSteps>([&](auto i) {
      constexpr int kBlock = i / kSteps;
      const int dim = group * kHalf + i % kSteps * Core::kK;
      Core::template product<false, i == 0>(all, keys.keys(), kBlock * kTileKeys * kColumns, dim, shared.query[0],
                                            kBlock * kRows * kColumns, dim);
    });
    Core::commit();
    Core::wait(all);
    RF_UNROLL
    for (int turn = 0; turn < (kInTurn ? 2 : 1); ++turn) {
      if (!kInTurn || turn == group) store_sums(sums_of(shared, group ^ 1), all);
      barrier();
      if (!kInTurn || turn != group) add_sums(sums_of(shared, group), all, scores);
      if (kInTurn) barrier();
    }
  }

  RF_DEVICE static Sums& sums_of(Shared& shared, int group) {
    if constexpr (kInTurn) return reinterpret_cast<Sums&>(shared.probability);
    else return shared.sums[group];
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
        scores[t][r] =
            Score::shape(args.softmax, own.score[t][stat_of(r)], key, scores[t][r] * key_scale) * factor;
      }
    }
    if (!masked) return;
    RF_UNROLL
    for (int t = 0; t < kOwnTiles; ++t) {
      RF_UNROLL
      for (int r = 0; r < Core::kC; ++r) {
        const KeySpan seen = token_keys(args.mask, seg.context, own.token[t][stat_of(r)]);
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
      const float top = R::reduce(max(scores[t][s], scores[t][R::kStats + s]), [](float a, float b) { return max(a, b); });
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

  // What results.h takes: sums that are still to be added up over a column's lanes.
  RF_DEVICE static void finish(Shared& shared, const Own& own, const C (&out)[kBands][kQueryTiles], State& state) {
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
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        state.row[t][s] = shared.row[t * R::kRows + R::stat_query(lane<R::kWave>(), s)];
        if (!first_of_column()) state.row[t][s].sum = 0.0f;
      }
      RF_UNROLL
      for (int band = 0; band < kBands; ++band) state.out[t][band] = Core::ordered(out[band][t]);
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
