// SPDX-License-Identifier: Apache-2.0
// How a head's dims are dealt to output tiles so that every lane reads and writes runs of consecutive dims.
#pragma once

#include "../target/device.h"

namespace rocmforge {

// HeadSize dims in tiles of `TileDims`. Tiles come in bands of MaxWidth (8 or less), ..., 2 or 1: in a band of width w
// that starts at tile n0, row i of tile n0 + j is dim n0 * TileDims + run(i) * w + j, so the lane that owns row i moves
// w consecutive dims at once. Holders: lanes that share the rows, each four in a row; 1 where rows lie otherwise.
template <int HeadSize, int TileDims, int MaxWidth = 8, int Holders = 1>
struct Dims {
  static_assert(HeadSize % TileDims == 0);
  static constexpr int kTiles = HeadSize / TileDims;

  static constexpr int width_at(int tile) {
    int width = MaxWidth;
    while (width > kTiles - tile) width /= 2;
    return width;
  }
  static constexpr int kBands = [] {
    int bands = 0;
    for (int tile = 0; tile < kTiles; tile += width_at(tile)) ++bands;
    return bands;
  }();
  static constexpr int first_tile(int band) {
    int tile = 0;
    for (int i = 0; i < band; ++i) tile += width_at(tile);
    return tile;
  }
  static constexpr int width(int band) { return width_at(first_tile(band)); }
  // First dim of the run that row i owns in this band.
  RF_DEVICE static constexpr int run_start(int band, int i) {
    return first_tile(band) * TileDims + (width(band) > 1 ? run(i) : i) * width(band);
  }

 private:
  // Where a row's run lies among a band's: first row 0 of each holder, then their rows 1, and so on. A store writes
  // such a set at once, which fills lines that runs of one holder's rows apart would only touch. In half of the sets
  // holders change places, so that eight lanes that read their runs from shared memory, 16 bytes each, meet no bank
  // twice.
  RF_DEVICE static constexpr int run(int i) {
    if constexpr (Holders == 1) return i;
    static_assert(Holders == 1 || (Holders == 4 && TileDims == 16));
    const int holder = i / 4, row = i % 4;
    return 4 * row + (holder ^ (row & 2));
  }
};

}  // namespace rocmforge
