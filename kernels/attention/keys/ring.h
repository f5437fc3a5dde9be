// SPDX-License-Identifier: Apache-2.0
// Staged tiles (staged.h) where copies to shared memory are asynchronous: a ring of buffers, of which kLead are under
// way. One barrier a tile: whoever passes tile t's barrier knows that tile t has arrived for everybody and that
// everybody has left tile t - 1 - Held, whose buffer takes the next copy. RingCopies fills the buffers; what derives
// from it reads them.
#pragma once

#include "../../target/unrolled.h"
#include "../../target/words.h"
#include "padded_rows.h"
#include "source.h"

namespace rocmforge {

// Stage: a buffer. key_chunk(row, column) and value_chunk(row, column) are where 16 bytes of a key's row go; arrived()
// is called when a thread's copies are in. Held: tiles before the current one that are still read; -1: none, and
// copies are requested when the current one has been left too.
template <class G, class Stage, int Held = 0>
class RingCopies {
 public:
  using R = typename G::R;
  using Format = typename G::Format;
  using Stored = typename Format::Stored;
  using Place = typename Source<Format>::Place;

  static constexpr int kStages = G::kFeed.stages;
  static constexpr int kLead = kStages - 1 - Held;  // tiles on their way
  static_assert(kLead > 0);
  static constexpr int kTileKeys = G::kTileKeys, kThreads = G::kThreads;
  static constexpr int kChunk = 16 / sizeof(Stored);  // elements of one copy
  static constexpr int kRowChunks = G::Problem::kMostDims / kChunk;
  static constexpr int kChunks = kTileKeys * kRowChunks;
  static constexpr int kPasses = ceil_div(kChunks, kThreads);
  // All threads copy kPassRows whole rows in a pass (0: not whole ones). Where such passes make up spans, and these the
  // tile, one table lookup serves a span; else each pass has its own.
  static constexpr int kPassRows = kThreads % kRowChunks == 0 ? kThreads / kRowChunks : 0;
  // Where a thread copies many chunks, eight threads copy a row, or several.
  static constexpr int kRowThreads = 8;
  static constexpr bool kByRow = kPasses > 8;
  static_assert(!kByRow || (kRowChunks % kRowThreads == 0 && kTileKeys * kRowThreads % kThreads == 0));
  static constexpr bool kRegular = !kByRow && kPassRows > 0 &&
                                   kSpan % max(kPassRows, 1) == 0 && kTileKeys % kSpan == 0 && kChunks % kThreads == 0;
  static constexpr int kLookups = kRegular ? kTileKeys / kSpan : kByRow ? kTileKeys * kRowThreads / kThreads : kPasses;
  struct Shared {
    Stage stage[kStages];
  };

  RF_DEVICE RingCopies(const KeyPages& pages, Shared& shared, int request, int head, KeySpan seen, int)
      : source_(pages, request, head, seen), shared_(shared) {}

  // As constructed and started for another item, when everybody has left the last tile.
  RF_DEVICE void restart(int request, int head, KeySpan seen, int tile, int end) {
    source_.move(request, head, seen);
    start(tile, end);
  }

  RF_DEVICE void start(int tile, int end) {
    end_ = end;
    tile_ = tile;
    buffer_ = 0;
    // All lookups before the first copy, which waits for its own.
    int pages[kLead + 1][kHeld];
    RF_UNROLL
    for (int s = 0; s <= kLead; ++s) find_pages(tile + s, pages[s]);
    RF_UNROLL
    for (int s = 0; s < kLead; ++s) copy(tile + s, s, pages[s]);
    RF_UNROLL
    for (int i = 0; i < kHeld; ++i) page_[i] = pages[kLead][i];
  }

  RF_DEVICE void wait() {
    arrived();
    barrier();
    request();
  }
  RF_DEVICE void next_keys(int) {}

  RF_DEVICE void next(int tile) {
    tile_ = tile;
    buffer_ = buffer_ + 1 == kStages ? 0 : buffer_ + 1;
  }

  RF_DEVICE void finish() { barrier(); }

 protected:
  // Waits for this thread's part of the oldest tile on its way.
  RF_DEVICE void arrived() {
    copy_wait<kLead - 1>();
    Stage::arrived();
  }

  RF_DEVICE void request() {
    copy(tile_ + kLead, before(Held + 1), page_);
    find_pages(tile_ + kLead + 1, page_);
  }

  RF_DEVICE const Stage& stage() const { return shared_.stage[buffer_]; }

 private:
  // The buffer of the tile so many before.
  RF_DEVICE int before(int tiles) const { return buffer_ < tiles ? buffer_ + kStages - tiles : buffer_ - tiles; }

  // Lookup i's key, moved into the range that may be read.
  RF_DEVICE int lookup_key(int tile, int i) const {
    if constexpr (kRegular) {
      return source_.nearest_span(tile * kTileKeys + i * kSpan);
    } else if constexpr (kByRow) {
      return source_.nearest(tile * kTileKeys + row_of(i));
    } else {
      const int chunk = min(thread_index() + i * kThreads, kChunks - 1);
      return source_.nearest(tile * kTileKeys + chunk / kRowChunks);
    }
  }

  RF_DEVICE static int row_of(int i) { return thread_index() / kRowThreads + i * (kThreads / kRowThreads); }

  // A lane looks up one span of a regular tile, and passes on what it found when the tile is copied: the table's
  // latency must not be met here, where every tile would wait for it.
  static constexpr int kHeld = kRegular ? 1 : kLookups;
  RF_DEVICE static int held_lookup(int i) { return kRegular ? lane<R::kWave>() % kLookups : i; }

  RF_DEVICE void find_pages(int tile, int (&pages)[kHeld]) const {
    if (tile >= end_) return;
    RF_UNROLL
    for (int i = 0; i < kHeld; ++i) pages[i] = source_.page(lookup_key(tile, held_lookup(i)));
  }

  RF_DEVICE void copy(int tile, int buffer, const int (&pages)[kHeld]) {
    if (tile < end_) {
      int64_t at[kHeld];
      RF_UNROLL
      for (int i = 0; i < kHeld; ++i)
        at[i] = source_.page_at(pages[i]) + source_.in_page(lookup_key(tile, held_lookup(i)));
      if constexpr (kRegular) {
        const KeySpan seen = source_.seen();
        if (tile * kTileKeys >= seen.first && tile * kTileKeys + kTileKeys - 1 <= seen.last)
          copy_spans<true>(tile, shared_.stage[buffer], at[0]);
        else copy_spans<false>(tile, shared_.stage[buffer], at[0]);
      } else if constexpr (kByRow) {
        unrolled<kLookups>([&](auto i) {
          unrolled<kRowChunks / kRowThreads>([&](auto pass) {
            copy_chunk(shared_.stage[buffer], row_of(i), thread_index() % kRowThreads + pass * kRowThreads,
                       source_.rows() + at[i]);
          });
        });
      } else {
        unrolled<kPasses>([&](auto i) {
          const int chunk = thread_index() + i * kThreads;
          if (kChunks % kThreads == 0 || chunk < kChunks)
            copy_chunk(shared_.stage[buffer], chunk / kRowChunks, chunk % kRowChunks, source_.rows() + at[i]);
        });
      }
    }
    copy_commit();
  }

  template <bool Whole>
  RF_DEVICE void copy_spans(int tile, Stage& stage, int64_t at) {
    const int first = thread_index() / kRowChunks;
    const int64_t first_at = first * source_.stride();
    unrolled<kLookups>([&](auto s) {
      const Place span = source_.rows() + shuffle<R::kWave>(at, s);
      const int key = lookup_key(tile, s);
      unrolled<kSpan / kPassRows>([&](auto i) {
        constexpr int kFirst = i * kPassRows;
        Place row = span + first_at + kFirst * source_.stride();
        if constexpr (!Whole) {
          const KeySpan seen = source_.seen();
          row = span + max(seen.first - key, min(first + kFirst, seen.last - key)) * source_.stride();
        }
        const int chunk = thread_index() + (s * (kSpan / kPassRows) + i) * kThreads;
        copy_chunk(stage, chunk / kRowChunks, chunk % kRowChunks, row);
      });
    });
  }

  RF_DEVICE void copy_chunk(Stage& stage, int to, int chunk, Place row) {
    const int column = chunk * kChunk;
    if (G::Problem::has_key(column)) copy_async16(stage.key_chunk(to, column), source_.key(row, column));
    if constexpr (!Format::kValuesInKey) {
      if (G::Problem::has_value(column)) copy_async16(stage.value_chunk(to, column), source_.value(row, column));
    }
  }

  Source<Format> source_;
  Shared& shared_;
  int end_ = 0, tile_ = 0, buffer_ = 0;
  int page_[kHeld];
};

template <class G>
struct PaddedStage : PaddedRows<typename G::Format::Stored, 1, G::kTileKeys, G::Problem::kKeyDims + G::kFeed.key_pad,
                                G::Format::kValuesInKey ? 0 : G::Problem::kValueDims + G::kFeed.value_pad> {
  using Stored = typename G::Format::Stored;

  RF_DEVICE const Stored* key_row(int row) const { return this->keys[0][row]; }
  RF_DEVICE const Stored* value_row(int row) const {
    if constexpr (G::Format::kValuesInKey) return this->keys[0][row];
    else return this->values[0][row];
  }
  RF_DEVICE Stored* key_chunk(int row, int column) { return &this->keys[0][row][column]; }
  RF_DEVICE Stored* value_chunk(int row, int column) { return &this->values[0][row][column]; }
  RF_DEVICE static void arrived() {}
};

template <class G>
class RingKeys : public RingCopies<G, PaddedStage<G>> {
 public:
  using Base = RingCopies<G, PaddedStage<G>>;
  using R = typename G::R;
  using D = typename G::D;
  using typename Base::Format;
  using typename Base::Stored;
  using Element = typename Format::Element;
  using Operand = typename R::KeyOperand;
  using FirstRuns = Words<Element, D::width(0)>[R::kKeyElements];
  using Base::Base;
  static constexpr bool kTransposed = false;

  // The operands that piece P of the dims feeds, of key tile J.
  template <int J, int P>
  RF_DEVICE void key_piece(Operand* out) const {
    R::split(Format::unpack(G::key_words(this->stage().key_row(G::key_row(J)), G::piece_dim(P))), out);
  }

  template <int Group, int Op, int Band>
  RF_DEVICE void value_runs(Words<Element, D::width(Band)> (&out)[R::kKeyElements]) const {
    const int l = lane<R::kWave>();
    unrolled<R::kKeyElements>([&](auto e) {
      const Stored* const row = this->stage().value_row(Group * R::kPvKeys + R::template value_key<Op, e>(l));
      out[e] = Format::unpack(load_words<Stored, D::width(Band)>(row + G::value_dim(Band, R::operand_row(l))));
    });
  }
};

}  // namespace rocmforge
