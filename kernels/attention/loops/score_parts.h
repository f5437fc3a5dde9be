// SPDX-License-Identifier: Apache-2.0
// Scores of waves that share the dims: each has summed some of them over some of the dims, and all need all.
#pragma once

#include "../geometry.h"

namespace rocmforge {

template <class G>
struct ScoreParts {
  using R = typename G::R;
  using Tile = typename G::Tile;
  static constexpr int kRun = 4;  // scores that a lane moves at once
  static_assert(R::kScores % kRun == 0);
  using Run = Vec<float, kRun>;

  struct None {};
  struct Parts {
    Run run[G::kDimParts][G::kQueryTiles][G::kScoreTiles][R::kScores / kRun][R::kWave];
  };
  using Shared = SelectType<G::kDimWaves == 1, None, Parts>;

  // Whoever calls it for the next tile has passed a barrier since, so that all have read this one's parts.
  RF_DEVICE static void join(Shared& shared, const Tile (&own)[G::kOwnQueryTiles][G::kOwnScoreTiles],
                             Tile (&scores)[G::kQueryTiles][G::kScoreTiles]) {
    const int l = lane<R::kWave>();
    RF_UNROLL
    for (int t = 0; t < G::kOwnQueryTiles; ++t) {
      RF_UNROLL
      for (int j = 0; j < G::kOwnScoreTiles; ++j) {
        RF_UNROLL
        for (int r = 0; r < R::kScores; r += kRun) {
          auto& rows = shared.run[G::dim_part()][G::row_part() * G::kOwnQueryTiles + t];
          Run& run = rows[G::key_part() * G::kOwnScoreTiles + j][r / kRun][l];
          RF_UNROLL
          for (int i = 0; i < kRun; ++i) run[i] = own[t][j][r + i];
        }
      }
    }
    barrier();
    RF_UNROLL
    for (int t = 0; t < G::kQueryTiles; ++t) {
      RF_UNROLL
      for (int j = 0; j < G::kScoreTiles; ++j) {
        RF_UNROLL
        for (int r = 0; r < R::kScores; r += kRun) {
          Run sum = shared.run[0][t][j][r / kRun][l];
          RF_UNROLL
          for (int part = 1; part < G::kDimParts; ++part) sum = add(sum, shared.run[part][t][j][r / kRun][l]);
          RF_UNROLL
          for (int i = 0; i < kRun; ++i) scores[t][j][r + i] = sum[i];
          if constexpr (G::kLoop.most_operands > 0) schedule_fence();
        }
      }
    }
  }
};

}  // namespace rocmforge
