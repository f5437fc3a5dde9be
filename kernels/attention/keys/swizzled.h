// SPDX-License-Identifier: Apache-2.0
// A ring of tiles that the matrix core itself reads: groups of four waves multiply their 64 rows with a whole tile of
// keys in shared memory (mma_sm90.h), so neither K nor V passes registers.
#pragma once

#include "../../matrix/mma_sm90.h"
#include "ring.h"

namespace rocmforge {

// Rows in blocks of columns; none of values that lie in their keys.
template <class T, int kKeyBlocks, int kValueBlocks, int kBlock>
struct alignas(kHostTarget ? 64 : 1024) SwizzledBlocks {
  T keys[kKeyBlocks][kBlock];
  T values[kValueBlocks][kBlock];
};
template <class T, int kKeyBlocks, int kBlock>
struct alignas(kHostTarget ? 64 : 1024) SwizzledBlocks<T, kKeyBlocks, 0, kBlock> {
  T keys[kKeyBlocks][kBlock];
};

template <class G>
constexpr int swizzled_blocks(int dims) {
  return ceil_div(dims, SwizzledRows<typename G::T>::kColumns);
}

template <class G>
struct SwizzledStage : SwizzledBlocks<typename G::T, swizzled_blocks<G>(G::Problem::kKeyDims),
                                      G::Format::kValuesInKey ? 0 : swizzled_blocks<G>(G::Problem::kValueDims),
                                      G::kTileKeys * SwizzledRows<typename G::T>::kColumns> {
  using R = typename G::R;
  using T = typename G::T;
  using Rows = SwizzledRows<T>;
  static constexpr int kKeys = G::kTileKeys;
  // Of columns; the last may be filled in part.
  static constexpr int kKeyBlocks = swizzled_blocks<G>(G::Problem::kKeyDims);
  static constexpr int kValueBlocks = swizzled_blocks<G>(G::Problem::kValueDims);

  RF_DEVICE T* key_chunk(int row, int column) {
    return this->keys[column / Rows::kColumns] + Rows::chunk_at(row, column % Rows::kColumns);
  }
  RF_DEVICE T* value_chunk(int row, int column) {
    return this->values[column / Rows::kColumns] + Rows::chunk_at(row, column % Rows::kColumns);
  }
  RF_DEVICE static void arrived() { R::Core::publish(); }
};

// For products with keys, and dims, on the core's rows (loops/key_rows.h): a tile's buffer is free, and copied to
// again, when all waves have left it.
template <class G>
struct KeyRowsFeed : RingCopies<G, SwizzledStage<G>, -1> {
  using Base = RingCopies<G, SwizzledStage<G>, -1>;
  using Base::Base;
  using Base::request;
  static_assert(__is_same(typename G::Format::Stored, typename G::T) && G::Format::kValuesInKey);

  RF_DEVICE void wait() {
    this->arrived();
    barrier();
  }
  // The tile's keys, in blocks of Rows::kColumns dims.
  RF_DEVICE const typename G::T* keys() const { return this->stage().keys[0]; }
};

template <class G>
class SwizzledKeys : public RingCopies<G, SwizzledStage<G>, (G::kRowWaves > 4)> {
 public:
  using Stage = SwizzledStage<G>;
  using Base = RingCopies<G, Stage, (G::kRowWaves > 4)>;
  using R = typename G::R;
  using Mma = typename G::Mma;
  using Tile = typename R::Tile;
  using Operand = typename Mma::A;
  using Base::Base;
  // The core reads elements as they lie.
  static_assert(__is_same(typename G::Format::Stored, typename G::T));
  static_assert(G::kKeyWaves == 1 && G::kRowWaves % 4 == 0);

  static constexpr int kGroups = G::kRowWaves / 4;
  static constexpr int kGroupLanes = 4 * R::kWave;
  static constexpr int kProducts = G::Problem::kKeyDims / Mma::kK;
  static constexpr int kColumns = Stage::Rows::kColumns;  // of a product, at most

  // Groups do not meet at every tile: each tells the others that its part of the next tile has arrived, and so that it
  // has left the tile before this one, and goes on until it needs what they brought. Then one group's products run
  // beside another's softmax.
  RF_DEVICE void announce() {
    if constexpr (kGroups == 1) return;
    this->arrived();
    const int mine = wave_index<R::kWave>() / 4;
    RF_UNROLL
    for (int other = 1; other < kGroups; ++other)
      Mma::arrive_at(number((mine + other) % kGroups, announced_), kGroups * kGroupLanes);
    announced_ ^= 1;
  }

  // For the tile that all have announced. request() is to follow.
  RF_DEVICE void wait() {
    if constexpr (kGroups == 1) {
      this->arrived();
      barrier();
    } else {
      Mma::wait_at(number(wave_index<R::kWave>() / 4, waited_), kGroups * kGroupLanes);
      waited_ ^= 1;
    }
  }

  using Base::request;

  // Start the products with the tile's keys, and with its values.
  RF_DEVICE void score(const Operand (&query)[kProducts], Tile (&scores)[Stage::kKeys / Mma::kN]) const {
    Mma::begin();
    unrolled<kProducts>([&](auto i) {
      constexpr int kDim = i * Mma::kK;
      unrolled<ceil_div(Stage::kKeys, kColumns)>([&](auto block) {
        constexpr int kRow = kDim / kColumns * Stage::kKeys + block * kColumns;
        Mma::template product<false, i == 0>(tiles<block>(scores), query[i], this->stage().keys[0], kRow * kColumns,
                                             kDim % kColumns);
      });
    });
    Mma::commit();
  }

  RF_DEVICE void accumulate(const Operand (&p)[G::kPvGroups], Tile (&out)[G::Problem::kValueDims / Mma::kN]) const {
    Mma::begin();
    unrolled<G::kPvGroups>([&](auto g) {
      unrolled<Stage::kValueBlocks>([&](auto block) {
        Mma::template product<true, false>(tiles<block>(out), p[g], this->stage().values[0],
                                           block * Stage::kKeys * kColumns, g * Mma::kK);
      });
    });
    Mma::commit();
  }

 private:
  // The barrier at which a group waits for a tile: not the last tile's, where a slower group may yet be.
  RF_DEVICE static int number(int group, int odd) { return 1 + 2 * group + odd; }

  // Those of one block of columns.
  template <int Block, int Count>
  RF_DEVICE static auto& tiles(Tile (&all)[Count]) {
    constexpr int kFirst = Block * (kColumns / Mma::kN);
    return reinterpret_cast<Tile(&)[min(kColumns / Mma::kN, Count - kFirst)]>(all[kFirst]);
  }

  int announced_ = 0, waited_ = 0;  // tiles, modulo 2
};

}  // namespace rocmforge
