// SPDX-License-Identifier: Apache-2.0
// What the parts of attention share: types and sizes, and which rows and keys a wave has.
#pragma once

#include "../matrix/roles.h"
#include "dims.h"
#include "softmax.h"

namespace rocmforge {

template <class MatrixCore, int HeadSize, class ShapeChosen>
struct Geometry {
  using Mma = MatrixCore;
  using Shape = ShapeChosen;
  using R = Roles<Mma>;
  using T = typename R::T;
  using D = Dims<HeadSize, R::kDims, Shape::kRun>;
  using Tile = typename R::Tile;

  static constexpr int kHeadSize = HeadSize;
  static constexpr int kQueryTiles = Shape::kQueryTiles;
  static constexpr int kWaves = Shape::kRowWaves * Shape::kKeyWaves;
  static constexpr int kBlockRows = Shape::kRowWaves * kQueryTiles * R::kRows;
  static constexpr int kWaveKeys = Shape::kPvGroups * R::kPvKeys;
  static constexpr int kTileKeys = Shape::kKeyWaves * kWaveKeys;
  static constexpr int kScoreTiles = kWaveKeys / R::kKeys;
  static constexpr int kPieces = ceil_div(HeadSize, R::kPieceDims);
  static constexpr int kProducts = Shape::kWarpgroup ? HeadSize / Mma::kK : kPieces * R::kSteps;  // along the dims

  RF_DEVICE static int row_wave() { return wave_index<R::kWave>() / Shape::kKeyWaves; }
  RF_DEVICE static int key_wave() { return wave_index<R::kWave>() % Shape::kKeyWaves; }

  // Row of the row block that a lane's statistic of a query tile describes.
  RF_DEVICE static int lane_row(int query_tile, int stat) {
    return (row_wave() * kQueryTiles + query_tile) * R::kRows + R::stat_query(lane<R::kWave>(), stat);
  }

  // What a wave carries from tile to tile, the queries apart.
  struct State {
    Tile out[kQueryTiles][D::kTiles];
    SoftmaxState row[kQueryTiles][R::kStats];
    int last_key[kQueryTiles][R::kStats];  // position of the last key the row sees; -1: no such row
  };
};

}  // namespace rocmforge
