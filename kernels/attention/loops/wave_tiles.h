// SPDX-License-Identifier: Apache-2.0
// Which keys a workgroup's item needs, and which of its tiles concern a wave.
#pragma once

#include "../geometry.h"
#include "../schedule/segments.h"

namespace rocmforge {

// Tiles of a segment, counted from its item's first: those that all of a wave's rows see whole need no mask, and from
// `end` on no row sees any.
struct WaveTiles {
  int full_begin, full_end, end;
  RF_DEVICE bool masked(int tile) const { return tile < full_begin || tile >= full_end; }
};

template <class G>
RF_DEVICE int last_row(const Segment& seg) {
  return min(seg.first_row + G::kBlockRows, seg.rows) - 1;
}

// Keys that some row of the item sees.
template <class G>
RF_DEVICE KeySpan item_keys(const AttentionArgs& args, const Segment& seg) {
  return {row_keys<G>(args, seg, seg.first_row).first, row_keys<G>(args, seg, last_row<G>(seg)).last};
}

// Rows are token-major, so a wave's first row sees the fewest of the newest keys and its last row the fewest of the
// oldest. `Together` waves decide as one, and the compiler must see that they do.
template <class G, int Together = 1>
RF_DEVICE WaveTiles wave_tiles(const AttentionArgs& args, const Segment& seg) {
  constexpr int kRows = G::kWaveRows * Together;
  const int together = uniform_now<G::R::kWave>(G::row_wave() / Together);
  const int last = last_row<G>(seg), wave_row = seg.first_row + together * kRows;
  const KeySpan first_sees = row_keys<G>(args, seg, min(wave_row, last));
  const KeySpan last_sees = row_keys<G>(args, seg, min(wave_row + kRows - 1, last));
  return {ceil_div(last_sees.first, G::kTileKeys) - seg.first_tile,
          (first_sees.last + 1) / G::kTileKeys - seg.first_tile,
          wave_row > last ? 0 : last_sees.last / G::kTileKeys + 1 - seg.first_tile};
}

}  // namespace rocmforge
