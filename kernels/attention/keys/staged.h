// SPDX-License-Identifier: Apache-2.0
// The workgroup's waves share each tile through shared memory. Tiles stay in rows of dims, as in the cache; a lane
// reads from them the same 16-byte pieces it would read from memory (direct.h). Two buffers and one barrier a tile:
// whoever passes tile t's barrier knows that everybody has left tile t - 1. Where shared memory is short
// (Staged::one_buffer), one buffer, filled between tiles: from registers (Staged::ahead), or where these are short too
// from memory.
#pragma once

#include "../../target/unrolled.h"
#include "../../target/words.h"
#include "padded_rows.h"
#include "source.h"

namespace rocmforge {

template <class G>
class StagedKeys {
 public:
  using R = typename G::R;
  using D = typename G::D;
  using Problem = typename G::Problem;
  using Format = typename G::Format;
  using Element = typename Format::Element;
  using Stored = typename Format::Stored;
  using Operand = typename R::KeyOperand;
  using FirstRuns = Words<Element, D::width(0)>[R::kKeyElements];

  static constexpr bool kOneBuffer = G::kFeed.one_buffer, kAhead = !kOneBuffer || G::kFeed.ahead;
  static constexpr bool kTransposed = G::kFeed.transposed;
  static_assert(!kOneBuffer || !kAhead || !kAsyncCopy);
  static constexpr int kTileKeys = G::kTileKeys, kThreads = G::kThreads;
  static constexpr int kChunk = 16 / sizeof(Stored);  // elements a thread moves at once
  static constexpr int kRowChunks = Problem::kMostDims / kChunk;
  static constexpr int kChunks = kTileKeys * kRowChunks;
  static constexpr int kPasses = ceil_div(kChunks, kThreads);
  // Where a thread moves many chunks, all are of one row: one place to hold, and one to look up.
  static constexpr int kRowLanes = kThreads / kTileKeys;
  static constexpr bool kByRow = kPasses > 4;
  static_assert(!kByRow || kThreads % kTileKeys == 0);
  static constexpr int kPlaces = kByRow ? 1 : kPasses;
  // Whether a place is a row's, whose columns are found when it is read: of narrow heads, since the launch says where
  // they end.
  static constexpr bool kByColumn = kByRow || Format::kApart || Format::kNarrow;
  static constexpr int kBuffers = kOneBuffer ? 1 : 2;

  using Shared = PaddedRows<Stored, kBuffers, kTileKeys, Problem::kKeyDims + G::kFeed.key_pad,
                            Format::kValuesInKey ? 0 : Problem::kValueDims + G::kFeed.value_pad>;

  RF_DEVICE StagedKeys(const KeyPages& pages, Shared& shared, int request, int head, KeySpan seen, int)
      : source_(pages, request, head, seen), shared_(shared) {}

  RF_DEVICE void start(int tile, int end) {
    end_ = end;
    buffer_ = 0;
    if constexpr (!kAhead) {
      fill_between(tile);
    } else {
      find_rows(tile);
      if constexpr (kAsyncCopy) copy(0);
      else fetch();
      find_rows(tile + 1);
      store(0);
    }
  }

  RF_DEVICE void wait() {
    if constexpr (kAsyncCopy) copy_wait<0>();
    barrier();
    if (kAhead && more_) {
      if constexpr (kAsyncCopy) copy(buffer_ ^ 1);
      else fetch();
    }
  }
  RF_DEVICE void next_keys(int) {}

  RF_DEVICE void next(int tile) {
    if constexpr (kOneBuffer) barrier();  // everybody has left the tile
    if constexpr (!kAhead) {
      fill_between(tile);
    } else {
      if constexpr (!kOneBuffer) buffer_ ^= 1;
      if (more_) {
        store(buffer_);
        find_rows(tile + 1);
      }
    }
  }

  RF_DEVICE void finish() { barrier(); }

  template <int J, int P>
  RF_DEVICE void key_piece(Operand* out) const {
    const Stored* const row = shared_.keys[buffer_][G::key_row(J)];
    R::split(Format::unpack(G::key_words(row, G::piece_dim(P))), out);
  }

  template <int Group, int Op, int Band>
  RF_DEVICE void value_runs(Words<Element, D::width(Band)> (&out)[R::kKeyElements]) const {
    const int l = lane<R::kWave>();
    unrolled<R::kKeyElements>([&](auto e) {
      const Stored* const row = value_row(Group * R::kPvKeys + R::template value_key<Op, e>(l));
      out[e] = Format::unpack(load_words<Stored, D::width(Band)>(row + G::value_dim(Band, R::operand_row(l))));
    });
  }

  // Of output tile N, by reads that transpose: 16 lanes share four keys' 16 dims.
  template <int Group, int Op, int N>
  RF_DEVICE Operand value_operand() const {
    static_assert(sizeof(Stored) == 2 && R::kDims == 16);
    const int l = lane<R::kWave>();
    Words<Stored, R::kKeyElements> out;
    unrolled<R::kKeyElements / 4>([&](auto part) {
      const int key = Group * R::kPvKeys + R::template value_key<Op, 4 * part>(l) + l % 16 / 4;
      const int dim = G::dim_wave() * G::kWaveDims + N * R::kDims + l % 4 * 4;
      const auto four = load_transposed<R::kWave>(value_row(key) + dim);
      out.word[2 * part] = four.word[0];
      out.word[2 * part + 1] = four.word[1];
    });
    return vector_at<Operand>(Format::unpack(out));
  }

 private:
  RF_DEVICE const Stored* value_row(int key) const {
    if constexpr (Format::kValuesInKey) return shared_.keys[buffer_][key];
    else return shared_.values[buffer_][key];
  }

  // Nothing of it stays in registers past here.
  RF_DEVICE void fill_between(int tile) {
    find_rows(tile);
    if (!more_) return;
    if constexpr (kAsyncCopy) copy(0);
    else fetch();
    store(0);
  }

  // Where this thread's chunks of a tile lie in the cache.
  RF_DEVICE void find_rows(int tile) {
    more_ = tile < end_;
    if (!more_) return;
    RF_UNROLL
    for (int i = 0; i < kPlaces; ++i) {
      const int chunk = min(thread_index() + i * kThreads, kChunks - 1);
      const int row = kByRow ? thread_index() / kRowLanes : chunk / kRowChunks;
      const int column = kByColumn ? 0 : chunk % kRowChunks;
      const int key = source_.nearest(tile * kTileKeys + row);
      chunk_[i] = source_.rows() + source_.page_at(source_.page(key)) + source_.in_page(key) + column * kChunk;
    }
  }

  // A tile's chunks that this thread moves: f(i, row, column). Where they are read into registers, a thread of a row's
  // rest may read its last chunk again: a branch there would cost copies of the registers.
  template <bool Needed = true, class F>
  RF_DEVICE static void each_chunk(F&& f) {
    if constexpr (kByRow) {
      unrolled<ceil_div(kRowChunks, kRowLanes)>([&](auto i) {
        const int chunk = thread_index() % kRowLanes + i * kRowLanes;
        if (!Needed || (i + 1) * kRowLanes <= kRowChunks || chunk < kRowChunks)
          f(i, thread_index() / kRowLanes, min(chunk, kRowChunks - 1) * kChunk);
      });
    } else {
      unrolled<kPasses>([&](auto i) {
        const int chunk = thread_index() + i * kThreads;
        if (kChunks % kThreads == 0 || chunk < kChunks) f(i, chunk / kRowChunks, chunk % kRowChunks * kChunk);
      });
    }
  }

  // Where the thread's chunk i lies, which begins in `column` of its row.
  RF_DEVICE const Stored* key_from(int i, int column) const {
    return source_.key(chunk_[kByRow ? 0 : i], kByColumn ? column : 0);
  }
  RF_DEVICE const Stored* value_from(int i, int column) const {
    return source_.value(chunk_[kByRow ? 0 : i], kByColumn ? column : 0);
  }

  RF_DEVICE void copy(int buffer) {
    each_chunk([&](auto i, int row, int column) {
      if (Problem::has_key(column)) copy_async16(&shared_.keys[buffer][row][column], key_from(i, column));
      if constexpr (!Format::kValuesInKey) {
        if (Problem::has_value(column)) copy_async16(&shared_.values[buffer][row][column], value_from(i, column));
      }
    });
    copy_commit();
  }

  // Where there is no asynchronous copy, a tile waits in registers until its buffer is free.
  RF_DEVICE void fetch() {
    each_chunk<false>([&](auto i, int, int column) {
      if (Problem::has_key(column)) held_keys_[i] = load_words<Stored, kChunk>(key_from(i, column));
      if (Problem::has_value(column)) held_values_[i] = load_words<Stored, kChunk>(value_from(i, column));
    });
  }

  RF_DEVICE void store(int buffer) {
    if constexpr (!kAsyncCopy) {
      each_chunk([&](auto i, int row, int column) {
        if (Problem::has_key(column)) store_words(&shared_.keys[buffer][row][column], held_keys_[i]);
        if constexpr (!Format::kValuesInKey) {
          if (Problem::has_value(column)) store_words(&shared_.values[buffer][row][column], held_values_[i]);
        }
      });
    }
  }

  Source<Format> source_;
  Shared& shared_;
  int end_ = 0, buffer_ = 0;
  bool more_ = false;  // chunk_ names a tile still to be moved
  typename Source<Format>::Place chunk_[kPlaces];
  Words<Stored, kChunk> held_keys_[kPasses], held_values_[kPasses];
};

}  // namespace rocmforge
