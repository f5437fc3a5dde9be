// SPDX-License-Identifier: Apache-2.0
// Staged tiles read by the matrix core itself: groups of four waves multiply their 64 rows with a whole tile of 64 keys
// in shared memory (mma_sm90.h), so neither K nor V passes registers.
#pragma once

#include "../matrix/mma_sm90.h"
#include "keys_ring.h"

namespace rocmforge {

template <class R, int HeadSize>
struct alignas(kHostTarget ? 64 : 1024) SwizzledStage {
  using T = typename R::T;
  using Rows = SwizzledRows<T>;
  static constexpr int kKeys = 64;
  static constexpr int kBlocks = HeadSize / Rows::kColumns;
  static_assert(HeadSize % Rows::kColumns == 0);
  T keys[kBlocks][kKeys * Rows::kColumns];
  T values[kBlocks][kKeys * Rows::kColumns];

  RF_DEVICE T* key_chunk(int row, int column) {
    return keys[column / Rows::kColumns] + Rows::chunk_at(row, column % Rows::kColumns);
  }
  RF_DEVICE T* value_chunk(int row, int column) {
    return values[column / Rows::kColumns] + Rows::chunk_at(row, column % Rows::kColumns);
  }
  RF_DEVICE static void arrived() { R::Core::publish(); }
};

template <class R, int HeadSize, class Shape>
class WarpgroupKeys : public RingCopies<R, HeadSize, Shape, SwizzledStage<R, HeadSize>> {
 public:
  using Stage = SwizzledStage<R, HeadSize>;
  using Base = RingCopies<R, HeadSize, Shape, Stage>;
  using Mma = typename R::Core;
  using Tile = typename R::Tile;
  using Operand = typename R::QueryOperand;
  using Base::Base;
  static_assert(Base::kTileKeys == Stage::kKeys);

  static constexpr int kProducts = HeadSize / Mma::kK;
  static constexpr int kColumnTiles = Mma::kTileColumns / Mma::kN;

  RF_DEVICE void score(const Operand (&query)[kProducts], Tile (&scores)[kColumnTiles]) const {
    Mma::begin();
    unrolled<kProducts>([&](auto i) {
      constexpr int kDim = i * Mma::kK;
      Mma::template product<false, i == 0>(scores, query[i], this->stage().keys[kDim / Mma::kTileColumns],
                                           kDim % Mma::kTileColumns);
    });
    Mma::end();
  }

  RF_DEVICE void accumulate(const Operand (&p)[Shape::kPvGroups], Tile (&out)[HeadSize / Mma::kN]) const {
    Mma::begin();
    unrolled<Shape::kPvGroups>([&](auto g) {
      unrolled<Stage::kBlocks>([&](auto block) {
        Mma::template product<true, false>(tiles<block>(out), p[g], this->stage().values[block], g * Mma::kK);
      });
    });
    Mma::end();
  }

 private:
  // Output tiles of one block of columns.
  template <int Block>
  RF_DEVICE static Tile (&tiles(Tile (&out)[HeadSize / Mma::kN]))[kColumnTiles] {
    return reinterpret_cast<Tile(&)[kColumnTiles]>(out[Block * kColumnTiles]);
  }
};

}  // namespace rocmforge
