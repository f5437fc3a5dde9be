// SPDX-License-Identifier: Apache-2.0
// The loop over a segment's tiles in which each wave multiplies for itself: scores, softmax, output.
#pragma once

#include "../keys/direct.h"
#include "../keys/feed.h"
#include "../keys/ring.h"
#include "../keys/staged.h"
#include "../rows/queries.h"
#include "../rows/running_softmax.h"
#include "../tuning/choice.h"
#include "score_parts.h"
#include "wave_tiles.h"

namespace rocmforge {

template <class G, class Feed>
struct FeedOf;
template <class G>
struct FeedOf<G, Direct> {
  using Type = DirectKeys<G>;
};
template <class G>
struct FeedOf<G, Staged> {
  using Type = StagedKeys<G>;
};
template <class G>
struct FeedOf<G, Ring> {
  using Type = RingKeys<G>;
};

template <class G, class Feed>
struct WaveLoop {
  using Args = AttentionArgs;
  using R = typename G::R;
  using T = typename G::T;
  using D = typename G::D;
  using Tile = typename G::Tile;
  using Keys = typename FeedOf<G, Feed>::Type;
  static_assert(WaveFeed<Keys>);
  using Queries = PieceQueries<G>;
  using Softmax = RunningSoftmax<G>;
  struct QueriesAndScores {
    typename Queries::Shared query;
    typename ScoreParts<G>::Shared scores;
  };
  // An empty member would cost 16 bytes, and with them gfx11 a workgroup of decode at 128 dims.
  using Shared = SelectType<G::kDimWaves == 1, typename Queries::Shared, QueriesAndScores>;
  struct State : G::State {
    typename Queries::Held query;
  };
  static constexpr int kQueryTiles = G::kQueryTiles, kPieces = G::kPieces;
  // What a wave scores by itself.
  static constexpr int kScoredRows = G::kOwnQueryTiles, kScoreTiles = G::kOwnScoreTiles;
  static constexpr int kMostOperands = G::kLoop.most_operands;
  // Whether a wave may leave out tiles of which none of its rows sees a key; where all waves have the same rows, every
  // tile of the item concerns them.
  static constexpr bool kLeavesOut = !__is_same(Feed, Direct);
  // Whether scores are multiplied piece by piece of the dims for all keys of a tile, or key tile by key tile.
  static constexpr bool kByPiece = __is_same(Feed, Ring);

  // Takes the segment's tiles, the first of which has been requested.
  RF_DEVICE static void attend(const Args& args, const Segment& seg, Shared& shared, Keys& keys, State& state) {
    Queries::load(args, seg, queries_in(shared), state.query, state);
    const WaveTiles wave = wave_tiles<G>(args, seg);
    for (int tile = seg.begin; tile < seg.end; ++tile) {
      keys.wait();
      if (!kLeavesOut || tile < wave.end) step(args, seg, tile, wave.masked(tile), shared, keys, state);
      keys.next(seg.first_tile + tile + 1);
    }
    keys.finish();
  }

 private:
  using QueriesShared = typename Queries::Shared;
  using OwnScores = Tile[kScoredRows][kScoreTiles];
  using Scores = Tile[kQueryTiles][G::kScoreTiles];

  RF_DEVICE static QueriesShared& queries_in(Shared& shared) {
    if constexpr (G::kDimWaves == 1) return shared;
    else return shared.query;
  }

  RF_DEVICE static void step(const Args& args, const Segment& seg, int tile, bool masked, Shared& shared, Keys& keys,
                             State& state) {
    const int first_key = (seg.first_tile + tile) * G::kTileKeys + G::key_wave() * G::kWaveKeys;
    Scores scores;
    if constexpr (G::kDimWaves == 1) {
      score(shared, keys, state, scores);
    } else {
      OwnScores own;
      score(shared.query, keys, state, own);
      ScoreParts<G>::join(shared.scores, own, scores);
    }
    keys.next_keys(seg.first_tile + tile + 1);
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      Softmax::shape(args, seg.head, state.score[t], first_key, scores[t]);
      if (G::kLoop.lazy_maximum ? __builtin_expect(masked, false) : masked)
        Softmax::mask(args.mask, seg.context, first_key, state.token[t], scores[t]);
      Softmax::update(args, seg.head, scores[t], state.row[t], state.out[t]);
    }
    accumulate(keys, scores, state);
  }

  RF_DEVICE static void score(QueriesShared& shared, const Keys& keys, const State& state, OwnScores& scores) {
    if constexpr (kByPiece) score_by_piece(shared, keys, state, scores);
    else score_by_key(shared, keys, state, scores);
  }

  // Piece by piece of the dims: a query operand is fetched once for all keys of the tile.
  RF_DEVICE static void score_by_piece(QueriesShared& shared, const Keys& keys, const State& state, OwnScores& scores) {
    RF_UNROLL
    for (int t = 0; t < kScoredRows; ++t) {
      RF_UNROLL
      for (int j = 0; j < kScoreTiles; ++j) scores[t][j] = fill<float, R::kScores>(0.0f);
    }
    unrolled<kPieces>([&](auto p) {
      typename R::QueryOperand query[kScoredRows][R::kSteps];
      RF_UNROLL
      for (int t = 0; t < kScoredRows; ++t) {
        RF_UNROLL
        for (int i = 0; i < R::kSteps; ++i) query[t][i] = Queries::operand(shared, state.query, t, p * R::kSteps + i);
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
            for (int t = 0; t < kScoredRows; ++t)
              R::template score<1>(scores[t][part * kAtOnce + j], &operand[j][i], &query[t][i]);
          }
        }
      });
    });
  }

  RF_DEVICE static void score_by_key(QueriesShared& shared, const Keys& keys, const State& state, OwnScores& scores) {
    unrolled<kScoreTiles>([&](auto j) {
      RF_UNROLL
      for (int t = 0; t < kScoredRows; ++t) scores[t][j] = fill<float, R::kScores>(0.0f);
      constexpr int kAtOnce = kHostTarget ? kPieces : 1;  // few operands alive at a time
      unrolled<kPieces / kAtOnce>([&](auto part) {
        constexpr int kCount = kAtOnce * R::kSteps;
        typename R::KeyOperand operand[kCount];
        unrolled<kAtOnce>([&](auto p) { keys.template key_piece<j, part * kAtOnce + p>(operand + p * R::kSteps); });
        RF_UNROLL
        for (int t = 0; t < kScoredRows; ++t) {
          typename R::QueryOperand query[kCount];
          RF_UNROLL
          for (int i = 0; i < kCount; ++i) query[i] = Queries::operand(shared, state.query, t, part * kCount + i);
          R::template score<kCount>(scores[t][j], operand, query);
        }
        if constexpr (kMostOperands > 0) {
          if constexpr ((part + 1) * kCount % kMostOperands == 0) schedule_fence();
        }
      });
    });
  }

  RF_DEVICE static void accumulate(const Keys& keys, const Scores& scores, State& state) {
    unrolled<G::kPvGroups>([&](auto g) {
      unrolled<R::kPvOperands>([&](auto op) {
        typename R::QueryOperand p[kQueryTiles];
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) p[t] = R::probabilities(&scores[t][g * R::kPvTiles], op);
        unrolled<D::kBands>([&](auto band) {
          constexpr int kWidth = D::width(band);
          if constexpr (Keys::kTransposed) {
            static_assert(kWidth == 1);
            const typename R::KeyOperand operand = keys.template value_operand<g, op, band>();
            RF_UNROLL
            for (int t = 0; t < kQueryTiles; ++t) R::template accumulate<1>(&state.out[t][band], &operand, p[t]);
            return;
          } else {
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
              if constexpr (kMostOperands > 0) schedule_fence();
            });
          }
        });
      });
    });
    if constexpr (kMostOperands > 0) {
      RF_UNROLL
      for (int t = 0; t < kQueryTiles; ++t) {
        RF_UNROLL
        for (int n = 0; n < D::kTiles; ++n) materialize(state.out[t][n]);
      }
    }
  }
};

}  // namespace rocmforge
