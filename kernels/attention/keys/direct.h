// SPDX-License-Identifier: Apache-2.0
// Every wave reads its own keys, and what a lane loads (16 bytes at a time) is what its matrix operands need, so K and
// V pass through neither shared memory nor shuffles. The next tile's K is requested as soon as this one's has been
// multiplied, and V likewise, so a tile is always under way. Where registers are short (Direct::alternate), V is
// requested when K has been multiplied and the next K when V has: one set serves both.
#pragma once

#include "../../target/unrolled.h"
#include "../../target/words.h"
#include "source.h"

namespace rocmforge {

template <class G>
class DirectKeys {
 public:
  using R = typename G::R;
  using D = typename G::D;
  using Format = typename G::Format;
  using T = typename Format::Element;
  using Stored = typename Format::Stored;
  using Operand = typename R::KeyOperand;
  using FirstRuns = Words<T, D::width(0)>[R::kKeyElements];
  struct Shared {};
  static constexpr bool kTransposed = false;

  static constexpr int kScoreTiles = G::kScoreTiles, kPieces = G::kPieces, kPvGroups = G::kPvGroups;
  static constexpr bool kAlternate = G::kFeed.alternate;
  static constexpr int kSpans = G::kWaveKeys / kSpan;
  static constexpr int kSpansOfTile = max(1, R::kKeys / kSpan);  // two: one for either half of the lanes
  static_assert(kSpansOfTile <= 2 && G::kDimWaves == 1 && !Format::kApart);

  RF_DEVICE DirectKeys(const KeyPages& pages, Shared&, int request, int head, KeySpan seen, int key_wave)
      : source_(pages, request, head, seen),
        row_bytes_(static_cast<uint32_t>(pages.token_stride * sizeof(Stored))),
        wave_key_(key_wave * G::kWaveKeys) {}

  RF_DEVICE void start(int tile, int end) {
    end_ = end;
    find_pages(tile);
    load_keys(tile);
    if constexpr (!kAlternate) {
      load_values(tile);
      find_pages(tile + 1);
    }
  }

  RF_DEVICE void wait() {}
  RF_DEVICE void finish() {}

  RF_DEVICE void next_keys(int tile) {
    if constexpr (kAlternate) {
      schedule_fence();
      load_values(tile - 1);
      find_pages(tile);
    } else if (tile < end_) {
      load_keys(tile);
    }
  }

  RF_DEVICE void next(int tile) {
    if constexpr (kAlternate) {
      schedule_fence();
      if (tile < end_) load_keys(tile);
      else forget_keys();
    } else if (tile < end_) {
      load_values(tile);
      find_pages(tile + 1);
    }
  }

  template <int J, int P>
  RF_DEVICE void key_piece(Operand* out) const {
    R::split(Format::unpack(keys_[J][P]), out);
  }

  template <int Group, int Op, int Band>
  RF_DEVICE void value_runs(Words<T, D::width(Band)> (&out)[R::kKeyElements]) const {
    RF_UNROLL
    for (int e = 0; e < R::kKeyElements; ++e) {
      Words<Stored, D::width(Band)> run;
      RF_UNROLL
      for (int i = 0; i < run.kCount; ++i)
        run.word[i] = values_[Group][Op][e].word[D::first_tile(Band) / run.kPerWord + i];
      out[e] = Format::unpack(run);
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

  // Start of span i of the wave's keys in a tile, moved into the range that may be read.
  RF_DEVICE int span_key(int tile, int i) const {
    return source_.nearest_span(tile * G::kTileKeys + wave_key_ + i * kSpan);
  }

  // Without a branch, past the last tile too: a branch would let the compiler move the scores' products behind it.
  RF_DEVICE void find_pages(int tile) {
    RF_UNROLL
    for (int i = 0; i < kSpans; ++i) page_[i] = source_.page(span_key(tile, i));
  }

  // Not done by find_pages: the page numbers, just requested, would be waited for there.
  RF_DEVICE void find_spans(int tile) {
    RF_UNROLL
    for (int i = 0; i < kSpans; ++i)
      span_[i] = source_.rows() + source_.page_at(uniform<R::kWave>(page_[i])) + source_.in_page(span_key(tile, i));
  }

  // Byte offset of a key's row from its span's start; past the ends of the range, that of the nearest key within it.
  RF_DEVICE uint32_t row_offset(int tile, int span, int row) const {
    const int key = span_key(tile, span);
    const KeySpan seen = source_.seen();
    row = min(max(row, max(seen.first - key, 0)), min(seen.last - key, kSpan - 1));
    return static_cast<uint32_t>(row) * row_bytes_;
  }

  RF_DEVICE static uint32_t bytes(int elements) {
    return static_cast<uint32_t>(elements) * static_cast<uint32_t>(sizeof(Stored));
  }

  template <int N>
  RF_DEVICE static Words<Stored, N> load(const Stored* span, uint32_t offset) {
    return load_words<Stored, N>(reinterpret_cast<const Stored*>(reinterpret_cast<const char*>(span) + offset));
  }

  RF_DEVICE void load_keys(int tile) {
    find_spans(tile);
    const int l = lane<R::kWave>();
    unrolled<kScoreTiles>([&](auto j) {
      constexpr int kSpanOfTile = j * R::kKeys / kSpan;
      const int row = j * R::kKeys % kSpan + R::operand_row(l);
      const Stored* span = span_[kSpanOfTile];
      uint32_t offset = row_offset(tile, kSpanOfTile, row);
      if constexpr (kSpansOfTile == 2) {
        const bool upper = row >= kSpan;
        const uint32_t other = row_offset(tile, kSpanOfTile + 1, row - kSpan);
        span = upper ? span_[kSpanOfTile + 1] : span;
        offset = upper ? other : offset;
      }
      unrolled<kPieces>([&](auto p) {
        const int dim = G::piece_dim(p);
        if constexpr (Format::kNarrow) {
          constexpr int kStep = min(R::kPiece, kNarrowStep);
          unrolled<R::kPiece / kStep>([&](auto i) {
            const auto step = load<kStep>(span, offset + bytes(source_.key_at(dim + i * kStep, kStep)));
            RF_UNROLL
            for (int w = 0; w < step.kCount; ++w) keys_[j][p].word[i * step.kCount + w] = step.word[w];
          });
        } else if (G::is_key_dim(dim)) {
          keys_[j][p] = load<R::kPiece>(span, offset + bytes(source_.key_at(dim, R::kPiece)));
        } else {
          keys_[j][p] = {};
        }
      });
    });
  }

  RF_DEVICE void load_values(int tile) {
    const int l = lane<R::kWave>();
    unrolled<kPvGroups>([&](auto g) {
      unrolled<R::kPvOperands>([&](auto op) {
        unrolled<R::kKeyElements>([&](auto e) {
          constexpr int kSpanOfKey = (g * R::kPvKeys + R::template value_key<op, e>(0)) / kSpan;
          const int row = g * R::kPvKeys + R::template value_key<op, e>(l) - kSpanOfKey * kSpan;
          const uint32_t offset = row_offset(tile, kSpanOfKey, row);
          unrolled<D::kBands>([&](auto band) {
            constexpr int kWidth = D::width(band);
            const int element = source_.value_at(D::run_start(band, R::operand_row(l)), kWidth);
            const Words<Stored, kWidth> run = load<kWidth>(span_[kSpanOfKey], offset + bytes(element));
            RF_UNROLL
            for (int i = 0; i < run.kCount; ++i)
              values_[g][op][e].word[D::first_tile(band) / run.kPerWord + i] = run.word[i];
          });
        });
      });
    });
  }

  Source<Format> source_;
  uint32_t row_bytes_;
  int wave_key_;
  int end_ = 0;
  int page_[kSpans];
  const Stored* span_[kSpans];
  Words<Stored, R::kPiece> keys_[kScoreTiles][kPieces];
  Words<Stored, D::kTiles> values_[kPvGroups][R::kPvOperands][R::kKeyElements];
};

}  // namespace rocmforge
