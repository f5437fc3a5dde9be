// SPDX-License-Identifier: Apache-2.0
// Staged tiles (keys_staged.h) where copies to shared memory are asynchronous: a ring of Shape::kStages buffers, of
// which kLead are under way. One barrier a tile: whoever passes tile t's barrier knows that tile t has arrived for
// everybody and that everybody has left tile t - 1 - Held, whose buffer takes the next copy. RingCopies fills the
// buffers; what derives from it reads them.
#pragma once

#include "../matrix/roles.h"
#include "../target/words.h"
#include "dims.h"
#include "schedule.h"

namespace rocmforge {

// Stage: a buffer. key_chunk(row, column) and value_chunk(row, column) are where 16 bytes of a key's row go; arrived()
// is called when a thread's copies are in. Held: tiles before the current one that are still read.
template <class R, int HeadSize, class Shape, class Stage, int Held = 0>
class RingCopies {
 public:
  using T = typename R::T;

  static constexpr int kStages = Shape::kStages;
  static constexpr int kLead = kStages - 1 - Held;  // tiles on their way
  static_assert(kLead > 0);
  static constexpr int kTileKeys = Shape::kPvGroups * R::kPvKeys;
  static_assert(Shape::kKeyWaves == 1);
  static constexpr int kThreads = Shape::kRowWaves * R::kWave;
  static constexpr int kChunk = 16 / sizeof(T);  // elements of one copy
  static constexpr int kRowChunks = HeadSize / kChunk;
  static constexpr int kChunks = kTileKeys * kRowChunks;
  static constexpr int kPasses = ceil_div(kChunks, kThreads);
  static constexpr int kSpan = 16;  // cache blocks are multiples of 16 keys, so 16 aligned keys lie together
  // Where a pass of all threads is a fixed part of a span, one table lookup serves the span, else one a pass.
  static constexpr int kPassRows = kThreads % kRowChunks == 0 ? kThreads / kRowChunks : 0;
  static constexpr bool kRegular = kPassRows > 0 && kPassRows <= kSpan && kSpan % (kPassRows ? kPassRows : 1) == 0 &&
                                   kTileKeys % kSpan == 0 && kChunks % kThreads == 0;
  static constexpr int kLookups = kRegular ? kTileKeys / kSpan : kPasses;
  struct Shared {
    Stage stage[kStages];
  };

  // `seen`: keys that may be read; others, even if the block table names a page for them, may hold NaN.
  RF_DEVICE RingCopies(const AttentionArgs& args, Shared& shared, int request, int head, KeySpan seen, int)
      : args_(args),
        shared_(shared),
        cache_(static_cast<const T*>(args.cache) + head * args.cache_head_stride),
        table_(args.block_table + request * args.block_table_stride),
        seen_(seen) {}

  // As constructed and started for another item, when everybody has left the last tile.
  RF_DEVICE void restart(int request, int head, KeySpan seen, int tile, int end) {
    cache_ = static_cast<const T*>(args_.cache) + head * args_.cache_head_stride;
    table_ = args_.block_table + request * args_.block_table_stride;
    seen_ = seen;
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
      return max(seen_.first & -kSpan, min(tile * kTileKeys + i * kSpan, seen_.last & -kSpan));
    } else {
      const int chunk = min(thread_index() + i * kThreads, kChunks - 1);
      return max(seen_.first, min(tile * kTileKeys + chunk / kRowChunks, seen_.last));
    }
  }

  // A lane looks up one span of a regular tile, and passes on what it found when the tile is copied: the table's
  // latency must not be met here, where every tile would wait for it.
  static constexpr int kHeld = kRegular ? 1 : kLookups;
  RF_DEVICE static int held_lookup(int i) { return kRegular ? lane<R::kWave>() % kLookups : i; }

  RF_DEVICE void find_pages(int tile, int (&pages)[kHeld]) const {
    if (tile >= end_) return;
    RF_UNROLL
    for (int i = 0; i < kHeld; ++i)
      pages[i] = table_[divide(lookup_key(tile, held_lookup(i)), args_.block_size).quotient];
  }

  // Keys outside the range that may be read are replaced by the nearest one inside: they are masked.
  RF_DEVICE void copy(int tile, int buffer, const int (&pages)[kHeld]) {
    if (tile < end_) {
      int64_t at[kHeld];
      RF_UNROLL
      for (int i = 0; i < kHeld; ++i)
        at[i] = pages[i] * args_.cache_block_stride +
                divide(lookup_key(tile, held_lookup(i)), args_.block_size).remainder * args_.cache_token_stride;
      if constexpr (kRegular) {
        if (tile * kTileKeys >= seen_.first && tile * kTileKeys + kTileKeys - 1 <= seen_.last)
          copy_spans<true>(tile, shared_.stage[buffer], at[0]);
        else
          copy_spans<false>(tile, shared_.stage[buffer], at[0]);
      } else {
        unrolled<kPasses>([&](auto i) {
          const int chunk = thread_index() + i * kThreads;
          if (kChunks % kThreads == 0 || chunk < kChunks) copy_chunk(shared_.stage[buffer], chunk, cache_ + at[i]);
        });
      }
    }
    copy_commit();
  }

  template <bool Whole>
  RF_DEVICE void copy_spans(int tile, Stage& stage, int64_t at) {
    const int first = thread_index() / kRowChunks;
    const int64_t first_at = first * args_.cache_token_stride;
    unrolled<kLookups>([&](auto s) {
      const T* const span = cache_ + shuffle<R::kWave>(at, s);
      const int key = lookup_key(tile, s);
      unrolled<kSpan / kPassRows>([&](auto i) {
        constexpr int kFirst = i * kPassRows;
        const T* row = span + first_at + kFirst * args_.cache_token_stride;
        if constexpr (!Whole)
          row = span + max(seen_.first - key, min(first + kFirst, seen_.last - key)) * args_.cache_token_stride;
        copy_chunk(stage, thread_index() + (s * (kSpan / kPassRows) + i) * kThreads, row);
      });
    });
  }

  RF_DEVICE void copy_chunk(Stage& stage, int chunk, const T* row) {
    const int to = chunk / kRowChunks, column = chunk % kRowChunks * kChunk;
    copy_async16(stage.key_chunk(to, column), row + column);
    copy_async16(stage.value_chunk(to, column), row + column + HeadSize);
  }

  const AttentionArgs& args_;
  Shared& shared_;
  const T* cache_;
  const int32_t* table_;
  KeySpan seen_;
  int end_ = 0, tile_ = 0, buffer_ = 0;
  int page_[kHeld];
};

// Rows are padded so that lanes that read different rows at once hit different banks.
template <class R, int HeadSize, class Shape>
struct alignas(16) PaddedStage {
  using T = typename R::T;
  T keys[Shape::kPvGroups * R::kPvKeys][HeadSize + Shape::kKeyPad];
  T values[Shape::kPvGroups * R::kPvKeys][HeadSize + Shape::kValuePad];

  RF_DEVICE T* key_chunk(int row, int column) { return &keys[row][column]; }
  RF_DEVICE T* value_chunk(int row, int column) { return &values[row][column]; }
  RF_DEVICE static void arrived() {}
};

template <class R, int HeadSize, class Shape>
class RingKeys : public RingCopies<R, HeadSize, Shape, PaddedStage<R, HeadSize, Shape>> {
 public:
  using Base = RingCopies<R, HeadSize, Shape, PaddedStage<R, HeadSize, Shape>>;
  using typename Base::T;
  using D = Dims<HeadSize, R::kDims>;
  using Base::Base;

  // The operands that piece P of the dims feeds, of key tile J.
  template <int J, int P>
  RF_DEVICE void key_piece(typename R::KeyOperand* out) const {
    const int l = lane<R::kWave>();
    const int dim = (P * R::kGroups + R::group(l)) * R::kPiece;
    Words<T, R::kPiece> piece{};
    if (HeadSize % R::kPieceDims == 0 || dim < HeadSize)
      piece = load_words<T, R::kPiece>(this->stage().keys[J * R::kKeys + R::operand_row(l)] + dim);
    R::split(piece, out);
  }

  template <int G, int Op, int Band>
  RF_DEVICE void value_runs(Words<T, D::width(Band)> (&out)[R::kKeyElements]) const {
    const int l = lane<R::kWave>();
    unrolled<R::kKeyElements>([&](auto e) {
      const T* const row = this->stage().values[G * R::kPvKeys + R::template value_key<Op, e>(l)];
      out[e] = load_words<T, D::width(Band)>(row + D::run_start(Band, R::operand_row(l)));
    });
  }
};

}  // namespace rocmforge
