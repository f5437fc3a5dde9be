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
  using Masked = typename Problem::Masked;
  using R = Roles<Mma>;
  using T = typename Problem::Element;
  static constexpr auto kChoice = kChosen;
  static constexpr auto kLoop = kChosen.loop;
  static constexpr auto kFeed = kChosen.loop.feed;
  // Of a wave's share of the value's dims.
  static constexpr int kWaveDims = Problem::kValueDims / kLoop.dim_waves;
  using D = Dims<kWaveDims, R::kDims, kLoop.value_run, R::kHolders>;
  using Tile = typename R::Tile;

  static constexpr int kQueryTiles = kChoice.block.query_tiles, kPvGroups = kChoice.block.pv_groups;
  static constexpr int kRowWaves = kFeed.row_waves, kKeyWaves = kFeed.key_waves;
  static constexpr int kDimWaves = kLoop.dim_waves;
  static constexpr int kWaves = kRowWaves * kKeyWaves * kDimWaves;
  static constexpr int kThreads = kWaves * R::kWave;
  static constexpr int kWaveRows = kQueryTiles * R::kRows;
  static constexpr int kBlockRows = kRowWaves * kWaveRows;
  static constexpr int kWaveKeys = kPvGroups * R::kPvKeys;
  static constexpr int kTileKeys = kKeyWaves * kWaveKeys;
  static constexpr int kScoreTiles = kWaveKeys / R::kKeys;
  static_assert(kWaves == max(kRowWaves, max(kKeyWaves, kDimWaves)));  // waves have one kind of part

  // What a wave scores where waves share the dims: some of the rows with some of the tile's keys, in some of the dims.
  static constexpr int kRowParts = kLoop.row_parts, kKeyParts = kLoop.key_parts;
  static constexpr int kDimParts = kDimWaves / kRowParts / kKeyParts;
  static constexpr int kOwnQueryTiles = kQueryTiles / kRowParts, kOwnScoreTiles = kScoreTiles / kKeyParts;
  static constexpr int kPieces = ceil_div(ceil_div(Problem::kKeyDims, R::kPieceDims), kDimParts);  // for each lane
  static_assert(kDimWaves == kRowParts * kKeyParts * kDimParts && Problem::kValueDims == kDimWaves * kWaveDims);
  static_assert(kQueryTiles % kRowParts == 0 && kScoreTiles % kKeyParts == 0);

  RF_DEVICE static int row_wave() { return kRowWaves == 1 ? 0 : wave_index<R::kWave>(); }
  RF_DEVICE static int key_wave() { return kKeyWaves == 1 ? 0 : wave_index<R::kWave>(); }
  RF_DEVICE static int dim_wave() { return kDimWaves == 1 ? 0 : wave_index<R::kWave>(); }
  RF_DEVICE static int key_part() { return dim_wave() % kKeyParts; }
  RF_DEVICE static int row_part() { return dim_wave() / kKeyParts % kRowParts; }
  RF_DEVICE static int dim_part() { return dim_wave() / (kKeyParts * kRowParts); }
  // Whether the wave speaks for all that hold the same rows.
  RF_DEVICE static bool first_of_row() { return key_wave() == 0 && dim_wave() == 0; }

  // Row of the row block that a lane's statistic of a query tile describes.
  RF_DEVICE static int lane_row(int query_tile, int stat) {
    return (row_wave() * kQueryTiles + query_tile) * R::kRows + R::stat_query(lane<R::kWave>(), stat);
  }

  // Dim of a key that piece `piece` of a lane begins with, and whether there is one.
  RF_DEVICE static int piece_dim(int piece) {
    return ((dim_part() * kPieces + piece) * R::kGroups + R::group(lane<R::kWave>())) * R::kPiece;
  }
  static constexpr bool kWholePieces = kDimParts * kPieces * R::kPieceDims == Problem::kKeyDims;
  RF_DEVICE static bool is_key_dim(int dim) { return kWholePieces || dim < Problem::kKeyDims; }
  // A key's piece from dim `dim` on in shared memory, zero if there is none. Where waves have parts of the dims another
  // piece stands for it, for the query has zeros there, and this costs no branch.
  template <class Stored>
  RF_DEVICE static Words<Stored, R::kPiece> key_words(const Stored* row, int dim) {
    constexpr int kLast = Problem::kKeyDims - R::kPiece;
    if constexpr (kWholePieces) return load_words<Stored, R::kPiece>(row + dim);
    else if constexpr (kDimParts > 1) return load_words<Stored, R::kPiece>(row + min(dim, kLast));
    else return dim < Problem::kKeyDims ? load_words<Stored, R::kPiece>(row + dim) : Words<Stored, R::kPiece>{};
  }
  // Row, in a tile, of the key that a lane holds in its wave's score tile `tile`.
  RF_DEVICE static int key_row(int tile) {
    return (key_part() * kOwnScoreTiles + tile) * R::kKeys + R::operand_row(lane<R::kWave>());
  }
  // First dim of the run that row i of a value operand holds in a band.
  RF_DEVICE static int value_dim(int band, int i) {
    if constexpr (kLoop.dim_group == 1) return dim_wave() * kWaveDims + D::run_start(band, i);
    // A group's dims are dealt to its waves band by band.
    const int group = dim_wave() / kLoop.dim_group, wave = dim_wave() % kLoop.dim_group;
    return (group * D::kBands + band) * kLoop.dim_group * R::kDims + wave * R::kDims + i;
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
