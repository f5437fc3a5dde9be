// SPDX-License-Identifier: Apache-2.0
// Decode's way to the cache: every wave reads its own keys, and what a lane loads (16 bytes at a time) is what its
// matrix operands need, so K and V pass through neither shared memory nor shuffles. The next tile's K is requested as
// soon as this one's has been multiplied, and V likewise, so a tile is always under way. Where registers are short
// (Shape::kAlternate), V is requested when K has been multiplied and the next K when V has: one set serves both.
#pragma once

#include "../matrix/roles.h"
#include "../target/words.h"
#include "dims.h"
#include "schedule.h"

namespace rocmforge {

template <class R, int HeadSize, class Shape>
class DirectKeys {
 public:
  using T = typename R::T;
  using D = Dims<HeadSize, R::kDims, Shape::kRun>;
  struct Shared {};

  static constexpr int kWaveKeys = Shape::kPvGroups * R::kPvKeys;
  static constexpr int kTileKeys = Shape::kKeyWaves * kWaveKeys;
  static constexpr int kScoreTiles = kWaveKeys / R::kKeys;
  static constexpr int kPieces = ceil_div(HeadSize, R::kPieceDims);
  static constexpr int kSpan = 16;  // cache blocks are multiples of 16 keys, so 16 aligned keys lie together
  static constexpr int kSpans = kWaveKeys / kSpan;
  static constexpr int kSpansOfTile = max(1, R::kKeys / kSpan);  // two: one for either half of the lanes
  static_assert(kSpansOfTile <= 2);

  // `seen`: keys that may be read; others, even if the block table names a page for them, may hold NaN.
  RF_DEVICE DirectKeys(const AttentionArgs& args, Shared&, int request, int head, KeySpan seen, int key_wave)
      : args_(args),
        cache_(static_cast<const T*>(args.cache) + head * args.cache_head_stride),
        table_(args.block_table + request * args.block_table_stride),
        row_bytes_(static_cast<uint32_t>(args.cache_token_stride * sizeof(T))),
        seen_(seen),
        wave_key_(key_wave * kWaveKeys) {}

  RF_DEVICE void start(int tile, int end) {
    end_ = end;
    find_pages(tile);
    load_keys(tile);
    if constexpr (!Shape::kAlternate) {
      load_values(tile);
      find_pages(tile + 1);
    }
  }

  RF_DEVICE void wait() {}
  RF_DEVICE void finish() {}

  RF_DEVICE void next_keys(int tile) {
    if constexpr (Shape::kAlternate) {
      schedule_fence();
      load_values(tile - 1);
      find_pages(tile);
    } else if (tile < end_) {
      load_keys(tile);
    }
  }

  RF_DEVICE void next(int tile) {
    if constexpr (Shape::kAlternate) {
      schedule_fence();
      if (tile < end_) load_keys(tile);
      else forget_keys();
    } else if (tile < end_) {
      load_values(tile);
      find_pages(tile + 1);
    }
  }

  template <int J, int P>
  RF_DEVICE void key_piece(typename R::KeyOperand* out) const {
    R::split(keys_[J][P], out);
  }

  template <int G, int Op, int Band>
  RF_DEVICE void value_runs(Words<T, D::width(Band)> (&out)[R::kKeyElements]) const {
    RF_UNROLL
    for (int e = 0; e < R::kKeyElements; ++e) {
      RF_UNROLL
      for (int i = 0; i < out[e].kCount; ++i)
        out[e].word[i] = values_[G][Op][e].word[D::first_tile(Band) / out[e].kPerWord + i];
    }
  }

 private:
  // Ends the life of the keys on the path that loads no others: their registers are the values' meanwhile.
  RF_DEVICE void forget_keys() {
    RF_UNROLL
    for (auto& pieces : keys_) {
      RF_UNROLL
      for (auto& piece : pieces) piece = {};
    }
  }

  RF_DEVICE int first_key(int tile) const { return tile * kTileKeys + wave_key_; }

  // Start of span i, moved into the range that may be read.
  RF_DEVICE int span_key(int tile, int i) const {
    return max(seen_.first & -kSpan, min(first_key(tile) + i * kSpan, seen_.last & -kSpan));
  }

  // Without a branch, past the last tile too: a branch would let the compiler move the scores' products behind it.
  RF_DEVICE void find_pages(int tile) {
    RF_UNROLL
    for (int i = 0; i < kSpans; ++i) page_[i] = table_[divide(span_key(tile, i), args_.block_size).quotient];
  }

  // Not done by find_pages: the page numbers, just requested, would be waited for there.
  RF_DEVICE void find_spans(int tile) {
    RF_UNROLL
    for (int i = 0; i < kSpans; ++i)
      span_[i] = cache_ + uniform<R::kWave>(page_[i]) * args_.cache_block_stride +
                 divide(span_key(tile, i), args_.block_size).remainder * args_.cache_token_stride;
  }

  // Byte offset of a key's row from its span's start; past the ends of the range, that of the nearest key within it.
  RF_DEVICE uint32_t row_offset(int tile, int span, int row) const {
    const int key = span_key(tile, span);
    row = min(max(row, max(seen_.first - key, 0)), min(seen_.last - key, kSpan - 1));
    return static_cast<uint32_t>(row) * row_bytes_;
  }

  template <int N>
  RF_DEVICE static Words<T, N> load(const T* span, uint32_t offset) {
    return load_words<T, N>(reinterpret_cast<const T*>(reinterpret_cast<const char*>(span) + offset));
  }

  RF_DEVICE void load_keys(int tile) {
    find_spans(tile);
    const int l = lane<R::kWave>();
    unrolled<kScoreTiles>([&](auto j) {
      constexpr int kSpanOfTile = j * R::kKeys / kSpan;
      const int row = j * R::kKeys % kSpan + R::operand_row(l);
      const T* span = span_[kSpanOfTile];
      uint32_t offset = row_offset(tile, kSpanOfTile, row);
      if constexpr (kSpansOfTile == 2) {
        const bool upper = row >= kSpan;
        const uint32_t other = row_offset(tile, kSpanOfTile + 1, row - kSpan);
        span = upper ? span_[kSpanOfTile + 1] : span;
        offset = upper ? other : offset;
      }
      unrolled<kPieces>([&](auto p) {
        const int dim = (p * R::kGroups + R::group(l)) * R::kPiece;
        if (HeadSize % R::kPieceDims == 0 || dim < HeadSize)
          keys_[j][p] = load<R::kPiece>(span, offset + dim * static_cast<uint32_t>(sizeof(T)));
        else
          keys_[j][p] = {};
      });
    });
  }

  RF_DEVICE void load_values(int tile) {
    const int l = lane<R::kWave>();
    unrolled<Shape::kPvGroups>([&](auto g) {
      unrolled<R::kPvOperands>([&](auto op) {
        unrolled<R::kKeyElements>([&](auto e) {
          constexpr int kSpanOfKey = (g * R::kPvKeys + R::template value_key<op, e>(0)) / kSpan;
          const int row = g * R::kPvKeys + R::template value_key<op, e>(l) - kSpanOfKey * kSpan;
          const uint32_t offset = row_offset(tile, kSpanOfKey, row);
          unrolled<D::kBands>([&](auto band) {
            constexpr int kWidth = D::width(band);
            const uint32_t dim = HeadSize + D::run_start(band, R::operand_row(l));
            const uint32_t at = offset + dim * static_cast<uint32_t>(sizeof(T));
            const Words<T, kWidth> run = load<kWidth>(span_[kSpanOfKey], at);
            RF_UNROLL
            for (int i = 0; i < run.kCount; ++i)
              values_[g][op][e].word[D::first_tile(band) / run.kPerWord + i] = run.word[i];
          });
        });
      });
    });
  }

  const AttentionArgs& args_;
  const T* cache_;
  const int32_t* table_;
  uint32_t row_bytes_;
  KeySpan seen_;
  int wave_key_;
  int end_ = 0;
  int page_[kSpans];
  const T* span_[kSpans];
  Words<T, R::kPiece> keys_[kScoreTiles][kPieces];
  Words<T, D::kTiles> values_[Shape::kPvGroups][R::kPvOperands][R::kKeyElements];
};

}  // namespace rocmforge
