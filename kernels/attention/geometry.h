// SPDX-License-Identifier: Apache-2.0
// What the parts of attention share: types and sizes, and which rows and keys a wave has.
#pragma once

#include "../matrix/roles.h"
#include "dims.h"
#include "softmax.h"

namespace rocmforge {

template <class MatrixCore, class ProblemServed, auto kChosen>
struct Geometry {
  using Mma = MatrixCore;
  using Problem = ProblemServed;
  using Format = typename Problem::Format;
  using Score = typename Problem::Score;
  using R = Roles<Mma>;
  using T = typename Problem::Element;
  static constexpr auto kChoice = kChosen;
  static constexpr auto kLoop = kChosen.loop;
  static constexpr auto kFeed = kChosen.loop.feed;
  using D = Dims<Problem::kValueDims, R::kDims, kLoop.value_run, R::kHolders>;
  using Tile = typename R::Tile;

  static constexpr int kQueryTiles = kChoice.block.query_tiles, kPvGroups = kChoice.block.pv_groups;
  static constexpr int kRowWaves = kFeed.row_waves, kKeyWaves = kFeed.key_waves;
  static constexpr int kWaves = kRowWaves * kKeyWaves;
  static constexpr int kThreads = kWaves * R::kWave;
  static constexpr int kWaveRows = kQueryTiles * R::kRows;
  static constexpr int kBlockRows = kRowWaves * kWaveRows;
  static constexpr int kWaveKeys = kPvGroups * R::kPvKeys;
  static constexpr int kTileKeys = kKeyWaves * kWaveKeys;
  static constexpr int kScoreTiles = kWaveKeys / R::kKeys;
  static constexpr int kPieces = ceil_div(Problem::kKeyDims, R::kPieceDims);  // of a key, for each lane
  static_assert(kRowWaves == 1 || kKeyWaves == 1);

  RF_DEVICE static int row_wave() { return wave_index<R::kWave>() / kKeyWaves; }
  RF_DEVICE static int key_wave() { return wave_index<R::kWave>() % kKeyWaves; }

  // Row of the row block that a lane's statistic of a query tile describes.
  RF_DEVICE static int lane_row(int query_tile, int stat) {
    return (row_wave() * kQueryTiles + query_tile) * R::kRows + R::stat_query(lane<R::kWave>(), stat);
  }

  // Dim of a key that piece `piece` of a lane begins with, and whether there is one.
  RF_DEVICE static int piece_dim(int piece) { return (piece * R::kGroups + R::group(lane<R::kWave>())) * R::kPiece; }
  RF_DEVICE static bool is_key_dim(int dim) {
    return Problem::kKeyDims % R::kPieceDims == 0 || dim < Problem::kKeyDims;
  }

  // What a wave carries from tile to tile, the queries apart.
  struct State {
    Tile out[kQueryTiles][D::kTiles];
    SoftmaxState row[kQueryTiles][R::kStats];
    int token[kQueryTiles][R::kStats];  // of the row, counted from the request's first query token
    typename Score::Row score[kQueryTiles][R::kStats];
  };
};

}  // namespace rocmforge
