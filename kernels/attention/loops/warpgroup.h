// SPDX-License-Identifier: Apache-2.0
// The loop over a segment's tiles for warpgroups: four waves multiply together, and their products run on their own
// until they are waited for. Those must not stand behind a branch of the loop: the compiler would run them one by one.
#pragma once

#include "../../matrix/quads.h"
#include "../keys/feed.h"
#include "../keys/swizzled.h"
#include "../rows/queries.h"
#include "../rows/results.h"
#include "../rows/running_softmax.h"
#include "wave_tiles.h"

namespace rocmforge {

// What a core publishes besides (mma_sm90.h): products that run on their own between begin(), commit() and wait(), with
// operands that are ready(), and barriers of some waves, which its feed uses.
template <class Core>
concept WarpgroupCore = requires(typename Core::A (&a)[2], typename Core::C (&c)[8], const typename Core::Element* b) {
  Core::ready(a);
  Core::flipped(a[0], 0);
  Core::begin();
  Core::template product<true, false>(c, a[0], b, 0, 0);
  Core::commit();
  Core::wait(c);
  Core::arrive_at(1, 128);
  Core::wait_at(1, 128);
  Core::publish();
};

// Whether queries are read and results written 16 bytes at a time, which takes registers: where values lie apart the
// loop has none left (H200, 128 dims: 190 bytes spilled instead of 58, and 8 times 1k tokens in 236 us instead of 211).
template <class G>
inline constexpr bool kInQuads = !G::Format::kApart;

// Operands with the contraction's slots in the order of the dims, as the keys lie in shared memory.
template <class G>
struct OrderedQueries {
  using R = typename G::R;
  using T = typename G::T;
  static constexpr int kProducts = G::Problem::kKeyDims / G::Mma::kK;

  struct Shared {};
  struct Held {
    Words<T, R::kQueryElements> operand[kProducts];
  };

  RF_DEVICE static void load(const AttentionArgs& args, const Segment& seg, Shared& shared, Held& held,
                             typename G::State& state) {
    load_queries<G, OrderedQueries>(args, seg, shared, held, state);
  }

  RF_DEVICE static void bring(const QueryRow<G> (&row)[R::kStats], Shared&, Held& held, int) {
    constexpr int kFours = kInQuads<G> ? kProducts / 2 : 0;  // of runs, of which each lane of a quad reads one for all
    unrolled<kFours>([&](auto four) {
      unrolled<R::kStats>([&](auto s) {
        auto run = row[s].template words<kRun>((4 * four + lane<R::kWave>() % 4) * kRun);
        transpose_quads<R::kWave>(run.word);
        unrolled<4>([&](auto i) { held.operand[2 * four + i / 2].word[word_of(s, i % 2)] = run.word[i]; });
      });
    });
    unrolled<kProducts - 2 * kFours>([&](auto rest) {
      constexpr int kProduct = 2 * kFours + rest;
      unrolled<R::kStats>([&](auto s) {
        unrolled<2>([&](auto i) {
          const int dim = kProduct * G::Mma::kK + i * kRun + lane<R::kWave>() % 4 * 2;
          held.operand[kProduct].word[word_of(s, i)] = row[s].template words<2>(dim).word[0];
        });
      });
    });
  }

 private:
  static constexpr int kRun = 8;
  static_assert(sizeof(T) == 2 && G::Mma::kK == 2 * kRun);

  // The word of an operand that holds two of statistic `stat`'s row in run `half` of its dims.
  static constexpr int word_of(int stat, int half) {
    int word = 0;
    while (query_stat<R>(2 * word) != stat || G::Mma::a_k(0, 2 * word) != kRun * half) ++word;
    return word;
  }
};

template <class G>
struct WarpgroupLoop {
  using Args = AttentionArgs;
  using R = typename G::R;
  using Core = typename G::Mma;
  using Tile = typename G::Tile;
  using Keys = SwizzledKeys<G>;
  using Queries = OrderedQueries<G>;
  using Softmax = RunningSoftmax<G>;
  using Shared = typename Queries::Shared;
  struct State : G::State {
    typename Queries::Held query;
  };
  static constexpr int kScoreTiles = G::kScoreTiles, kProducts = Queries::kProducts;
  static_assert(KeyFeed<Keys> && WarpgroupCore<Core> && G::kQueryTiles == 1);

  // Takes the segment's tiles, the first of which has been requested.
  RF_DEVICE static void attend(const Args& args, const Segment& seg, typename Queries::Shared& shared, Keys& keys,
                               State& state) {
    Queries::load(args, seg, shared, state.query, state);
    const WaveTiles wave = wave_tiles<G, 4>(args, seg);
    typename Core::A query[kProducts], p[G::kPvGroups];
    RF_UNROLL
    for (int i = 0; i < kProducts; ++i) query[i] = state.query.operand[i];
    Core::ready(query);
    const int end = min(seg.end, wave.end);
    if (seg.end > seg.begin) keys.announce();
    for (int tile = seg.begin; tile < end; ++tile) {
      const int first_key = (seg.first_tile + tile) * G::kTileKeys;
      Tile scores[kScoreTiles];
      keys.wait();
      start_scores(query, tile, keys, scores);
      keys.request();
      if (tile + 1 < seg.end) keys.announce();
      Core::wait(scores);
      Softmax::shape(args, seg.head, state.score[0], first_key, scores);
      if (wave.masked(tile)) Softmax::mask(args.mask, seg.context, first_key, state.token[0], scores);
      Softmax::update(args, seg.head, scores, state.row[0], state.out[0]);
      RF_UNROLL
      for (int g = 0; g < G::kPvGroups; ++g) p[g] = words_of(R::probabilities(&scores[g * R::kPvTiles], 0));
      Core::ready(p);
      keys.accumulate(p, state.out[0]);
      Core::wait(state.out[0]);
      keys.next(seg.first_tile + tile + 1);
    }
    // Tiles that only other groups need.
    for (int tile = max(seg.begin, end); tile < seg.end; ++tile) {
      keys.wait();
      keys.request();
      if (tile + 1 < seg.end) keys.announce();
      keys.next(seg.first_tile + tile + 1);
    }
    keys.finish();
  }

  // Writes the rows of a segment: what a quad's lanes hold of four runs of eight dims, a run each.
  RF_DEVICE static void write(const Args& earlier, const Segment& seg, Shared&, State& state) {
    using Result = Results<G>;
    const Args& args = reload_args(earlier);
    Result::add_up(state);
    if (kWrittenTiles == 0 || !seg.whole()) {
      Result::write_alone(args, seg, state);
      return;
    }
    typename Result::RowResult row[R::kStats];
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s)
      row[s] = Result::row_result(args, seg, G::lane_row(0, s), state.row[0][s], Result::holds_stats());
    unrolled<kWrittenTiles / 4>([&](auto four) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        Words<typename G::T, 8> run;
        RF_UNROLL
        for (int i = 0; i < 4; ++i) {
          Vec<typename G::T, 2> pair;
          RF_UNROLL
          for (int j = 0; j < 2; ++j)
            pair[j] = from_float<typename G::T>(state.out[0][4 * four + i][2 * s + j] * row[s].scale);
          run.word[i] = words_of(pair).word[0];
        }
        transpose_quads<R::kWave>(run.word);
        const int dim = (4 * four + lane<R::kWave>() % 4) * 8;
        if (row[s].out && (!G::Format::kNarrow || dim < row[s].dims)) store_words(row[s].out + dim, run);
      }
    });
  }

 private:
  // All tiles of the output, if they come in fours.
  static constexpr int kWrittenTiles = kInQuads<G> && G::D::kTiles % 4 == 0 ? G::D::kTiles : 0;

  template <class Operand>
  RF_DEVICE static void start_scores(const Operand (&query)[kProducts], int tile, const Keys& keys,
                                     Tile (&scores)[kScoreTiles]) {
    if constexpr (kProducts != G::kPvGroups && kScoreTiles != G::D::kTiles) {
      keys.score(query, scores);
    } else {
      // ptxas 13.0 gives other arrays the registers of the queries, though these live on, where there are two arrays of
      // operands of one size, or where scores are as many as the output's. So the queries are computed here, from a
      // zero that it does not know to be one.
      Operand renewed[kProducts];
      RF_UNROLL
      for (int i = 0; i < kProducts; ++i) renewed[i] = Core::flipped(query[i], tile >> 30);
      keys.score(renewed, scores);
    }
  }
};

}  // namespace rocmforge
