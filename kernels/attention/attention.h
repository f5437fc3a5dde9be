// SPDX-License-Identifier: Apache-2.0
// Paged attention, for decode and prefill alike. A workgroup walks its share of the plan (segments.h); per item it
// keeps the queries (queries.h) and the output in registers and streams key tiles (keys_*.h) past them, through the
// running softmax (running_softmax.h), and writes what came of it (results.h):
//   kRowWaves waves hold different rows of the row block, kKeyWaves waves take different keys of each tile.
// Decode has one row wave and reads K and V from memory straight into matrix operands; prefill has one key wave and
// shares each tile through shared memory.
#pragma once

#include "geometry.h"
#include "head_start.h"
#include "keys_direct.h"
#include "keys_ring.h"
#include "keys_staged.h"
#include "keys_warpgroup.h"
#include "queries.h"
#include "results.h"
#include "running_softmax.h"
#include "segments.h"

namespace rocmforge {

template <class R, int HeadSize, class Shape>
struct KeysOf {
  using Type = SelectType<(Shape::kStages > 0), RingKeys<R, HeadSize, Shape>,
                          SelectType<Shape::kStaged, StagedKeys<R, HeadSize, Shape>, DirectKeys<R, HeadSize, Shape>>>;
};
template <class R, int HeadSize, class Shape>
  requires(Shape::kWarpgroup)
struct KeysOf<R, HeadSize, Shape> {
  using Type = WarpgroupKeys<R, HeadSize, Shape>;
};

template <class Mma, int HeadSize, class Shape>
struct Attention {
  using Args = AttentionArgs;
  using G = Geometry<Mma, HeadSize, Shape>;
  using R = typename G::R;
  using T = typename G::T;
  using D = typename G::D;
  using Tile = typename G::Tile;
  using Query = Queries<G>;
  using Softmax = RunningSoftmax<G>;
  using Result = Results<G>;
  using Keys = typename KeysOf<R, HeadSize, Shape>::Type;
  static constexpr int kQueryTiles = G::kQueryTiles, kScoreTiles = G::kScoreTiles, kTileKeys = G::kTileKeys;
  static constexpr int kPieces = G::kPieces, kProducts = G::kProducts;

  struct Shared {
    union {
      typename Keys::Shared keys;
      typename Result::Merge merge;
    };
    typename Query::Shared query;
  };
  struct State : G::State {
    typename Query::Held query;
  };
  static constexpr int kWavesPerUnit = Shape::kWavesPerUnit;
  static constexpr LaunchConfig kConfig{.wave = R::kWave,
                                        .threads = G::kWaves * R::kWave,
                                        .shared_bytes = sizeof(Shared),
                                        .rows = G::kBlockRows,
                                        .keys = kTileKeys,
                                        .blocks_per_unit = Shape::kBlocksPerUnit,
                                        .staged = Shape::kStaged,
                                        .rounds = Shape::kRounds,
                                        .early = kEarlyLaunch};

  RF_DEVICE static void run(const Args& args) {
    const Plan plan{args.plan, args.workgroups};
    const Share share = plan.share(block_index(0));
    const RowBlock block = plan.first_block(block_index(0));  // asked for at once, whether there is one or not
    asked_for(share);
    asked_for(block);
    if constexpr (kEarlyLaunch) fetch_first_keys<T, G::kHeadSize>(args, share, block, kTileKeys);
    wait_for_previous();
    let_next_start();  // combine, which fits beside us once a workgroup has ended
    Segments<R::kWave, Shape::kRounds> segments(plan);
    Segment seg;
    if (!segments.first(args, share, block, seg)) return;
    if constexpr (Shape::kStages > 0) {
      // The next item's copies are under way while this one's result is written.
      Keys keys = start_keys(args, seg);
      for (bool more = true; more;) {
        const Segment done = seg;
        State state;
        attend(args, done, keys, state);
        more = segments.next(args, seg);
        if (more) {
          keys.restart(seg.request, seg.head, seen_keys(args, seg), seg.first_tile + seg.begin,
                       seg.first_tile + seg.end);
        }
        Result::write(args, done, shared_memory<Shared>().merge, state);
      }
    } else {
      do {
        const Args& again = reload_args(args);
        Keys keys = start_keys(again, seg);
        State state;
        attend(again, seg, keys, state);
        Result::write(again, seg, shared_memory<Shared>().merge, state);
      } while (segments.next(args, seg));
    }
  }

 private:
  RF_DEVICE static int last_row(const Segment& seg) { return min(seg.first_row + G::kBlockRows, seg.rows) - 1; }

  // Keys that some row of the item sees.
  RF_DEVICE static KeySpan seen_keys(const Args& args, const Segment& seg) {
    return {row_span(args, seg, seg.first_row).first, row_span(args, seg, last_row(seg)).last};
  }

  RF_DEVICE static Keys start_keys(const Args& args, const Segment& seg) {
    Keys keys(args, shared_memory<Shared>().keys, seg.request, seg.head, seen_keys(args, seg), G::key_wave());
    keys.start(seg.first_tile + seg.begin, seg.first_tile + seg.end);
    return keys;
  }

  // Rows are token-major, so a wave's first row sees the fewest of the newest keys and its last row the fewest of the
  // oldest. Waves of a warpgroup decide as one, and the compiler must see that they do.
  RF_DEVICE static WaveTiles wave_tiles(const Args& args, const Segment& seg) {
    constexpr int kTogether = Shape::kWarpgroup ? 4 : 1, kWaveRows = kQueryTiles * R::kRows * kTogether;
    const int together = uniform_now<R::kWave>(G::row_wave() / kTogether);
    const int last = last_row(seg), wave_row = seg.first_row + together * kWaveRows;
    const KeySpan first_sees = row_span(args, seg, min(wave_row, last));
    const KeySpan last_sees = row_span(args, seg, min(wave_row + kWaveRows - 1, last));
    return {ceil_div(last_sees.first, kTileKeys) - seg.first_tile, (first_sees.last + 1) / kTileKeys - seg.first_tile,
            wave_row > last ? 0 : last_sees.last / kTileKeys + 1 - seg.first_tile};
  }

  // Takes the segment's tiles, the first of which has been requested.
  RF_DEVICE static void attend(const Args& args, const Segment& seg, Keys& keys, State& state) {
    Query::load(args, seg, shared_memory<Shared>().query, state.query, state);
    const WaveTiles wave = wave_tiles(args, seg);
    if constexpr (Shape::kWarpgroup) {
      attend_in_groups(args, seg, wave, keys, state);
    } else {
      for (int tile = seg.begin; tile < seg.end; ++tile) {
        keys.wait();
        if (!Shape::kStaged || tile < wave.end) step(args, seg, tile, wave.masked(tile), keys, state);
        keys.next(seg.first_tile + tile + 1);
      }
    }
    keys.finish();
  }

  // The same for warpgroups, whose products run on their own until they are waited for. Those must not stand behind a
  // branch of the loop: the compiler would run them one by one.
  RF_DEVICE static void attend_in_groups(const Args& args, const Segment& seg, const WaveTiles& wave, Keys& keys,
                                         State& state) {
    using Core = typename R::Core;
    typename Core::A query[kProducts], p[Shape::kPvGroups];
    RF_UNROLL
    for (int i = 0; i < kProducts; ++i) query[i] = state.query.operand[0][i];
    Core::ready(query);
    const int end = min(seg.end, wave.end);
    keys.announce();
    for (int tile = seg.begin; tile < end; ++tile) {
      Tile scores[kScoreTiles];
      keys.wait();
      start_scores(query, tile, keys, scores);
      keys.request();
      if (tile + 1 < seg.end) keys.announce();
      Core::wait(scores);
      if (wave.masked(tile)) Softmax::mask(args, (seg.first_tile + tile) * kTileKeys, state.last_key[0], scores);
      Softmax::soften(args, scores, state.row[0], state.out[0]);
      RF_UNROLL
      for (int g = 0; g < Shape::kPvGroups; ++g) p[g] = words_of(R::probabilities(&scores[g * R::kPvTiles], 0));
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
  }

  template <class Operand>
  RF_DEVICE static void start_scores(const Operand (&query)[kProducts], int tile, const Keys& keys,
                                     Tile (&scores)[kScoreTiles]) {
    if constexpr (kProducts != Shape::kPvGroups) {
      keys.score(query, scores);
    } else {
      // ptxas 13.0 gives two arrays of operands of one size the same registers, though the queries live on. So they are
      // computed here, from a zero that it does not know to be one.
      Operand renewed[kProducts];
      RF_UNROLL
      for (int i = 0; i < kProducts; ++i) renewed[i] = R::Core::flipped(query[i], tile >> 30);
      keys.score(renewed, scores);
    }
  }

  RF_DEVICE static typename R::QueryOperand query_operand(const State& state, int t, int i) {
    return Query::operand(shared_memory<Shared>().query, state.query, t, i);
  }

  RF_DEVICE static void score(const Keys& keys, const State& state, Tile (&scores)[kQueryTiles][kScoreTiles]) {
    if constexpr (Shape::kStages > 0) {
      // Piece by piece of the dims: a query operand is fetched once for all keys of the tile.
      RF_UNROLL
      for (int t = 0; t < kQueryTiles; ++t) {
        RF_UNROLL
        for (int j = 0; j < kScoreTiles; ++j) scores[t][j] = fill<float, R::kScores>(0.0f);
      }
      unrolled<kPieces>([&](auto p) {
        typename R::QueryOperand query[kQueryTiles][R::kSteps];
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) {
          RF_UNROLL
          for (int i = 0; i < R::kSteps; ++i) query[t][i] = query_operand(state, t, p * R::kSteps + i);
        }
        // Products that add to the same scores lie apart, for each takes a while.
        constexpr int kAtOnce = kScoreTiles % 4 == 0 ? 4 : kScoreTiles % 3 == 0 ? 3 : kScoreTiles % 2 == 0 ? 2 : 1;
        unrolled<kScoreTiles / kAtOnce>([&](auto part) {
          typename R::KeyOperand operand[kAtOnce][R::kSteps];
          unrolled<kAtOnce>([&](auto j) { keys.template key_piece<part * kAtOnce + j, p>(operand[j]); });
          RF_UNROLL
          for (int i = 0; i < R::kSteps; ++i) {
            RF_UNROLL
            for (int j = 0; j < kAtOnce; ++j) {
              RF_UNROLL
              for (int t = 0; t < kQueryTiles; ++t)
                R::template score<1>(scores[t][part * kAtOnce + j], &operand[j][i], &query[t][i]);
            }
          }
        });
      });
    } else {
      unrolled<kScoreTiles>([&](auto j) {
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) scores[t][j] = fill<float, R::kScores>(0.0f);
        constexpr int kAtOnce = kHostTarget ? kPieces : 1;  // few operands alive at a time
        unrolled<kPieces / kAtOnce>([&](auto part) {
          constexpr int kCount = kAtOnce * R::kSteps;
          typename R::KeyOperand operand[kCount];
          unrolled<kAtOnce>([&](auto p) { keys.template key_piece<j, part * kAtOnce + p>(operand + p * R::kSteps); });
          RF_UNROLL
          for (int t = 0; t < kQueryTiles; ++t) {
            typename R::QueryOperand query[kCount];
            RF_UNROLL
            for (int i = 0; i < kCount; ++i) query[i] = query_operand(state, t, part * kCount + i);
            R::template score<kCount>(scores[t][j], operand, query);
          }
          if constexpr (Shape::kFence > 0) {
            if constexpr ((part + 1) * kCount % Shape::kFence == 0) schedule_fence();
          }
        });
      });
    }
  }

  RF_DEVICE static void step(const Args& args, const Segment& seg, int tile, bool masked, Keys& keys,
                             State& state) {
    const int first_key = (seg.first_tile + tile) * kTileKeys + G::key_wave() * G::kWaveKeys;
    Tile scores[kQueryTiles][kScoreTiles];
    score(keys, state, scores);
    keys.next_keys(seg.first_tile + tile + 1);
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      if (Shape::kGuess ? __builtin_expect(masked, false) : masked)
        Softmax::mask(args, first_key, state.last_key[t], scores[t]);
      Softmax::soften(args, scores[t], state.row[t], state.out[t]);
    }
    accumulate(keys, scores, state);
  }

  RF_DEVICE static void accumulate(const Keys& keys, const Tile (&scores)[kQueryTiles][kScoreTiles], State& state) {
    unrolled<Shape::kPvGroups>([&](auto g) {
      unrolled<R::kPvOperands>([&](auto op) {
        typename R::QueryOperand p[kQueryTiles];
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) p[t] = R::probabilities(&scores[t][g * R::kPvTiles], op);
        unrolled<D::kBands>([&](auto band) {
          constexpr int kWidth = D::width(band);
          if constexpr (Shape::kTransposed) {
            static_assert(kWidth == 1);
            const typename R::KeyOperand operand = keys.template value_operand<g, op, band>();
            RF_UNROLL
            for (int t = 0; t < kQueryTiles; ++t) R::template accumulate<1>(&state.out[t][band], &operand, p[t]);
            return;
          }
          Words<T, kWidth> runs[R::kKeyElements];
          keys.template value_runs<g, op, band>(runs);
          constexpr int kAtOnce = kHostTarget ? kWidth : min(kWidth, 2);  // few operands alive at a time
          unrolled<kWidth / kAtOnce>([&](auto part) {
            typename R::KeyOperand operand[kAtOnce];
            RF_UNROLL
            for (int n = 0; n < kAtOnce; ++n) operand[n] = column(runs, part * kAtOnce + n);
            RF_UNROLL
            for (int t = 0; t < kQueryTiles; ++t)
              R::template accumulate<kAtOnce>(state.out[t] + D::first_tile(band) + part * kAtOnce, operand, p[t]);
            if constexpr (Shape::kFence > 0) schedule_fence();
          });
        });
      });
    });
    if constexpr (Shape::kFence > 0) {
      RF_UNROLL
      for (int t = 0; t < kQueryTiles; ++t) {
        RF_UNROLL
        for (int n = 0; n < D::kTiles; ++n) settle(state.out[t][n]);
      }
    }
  }

};

}  // namespace rocmforge
