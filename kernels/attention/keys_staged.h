// SPDX-License-Identifier: Apache-2.0
// Prefill's way to the cache: the block's waves share each tile through shared memory. Tiles stay in rows of dims, as
// in the cache; a lane reads from them the same 16-byte pieces it would read from memory (keys_direct.h). Two buffers
// and one barrier a tile: whoever passes tile t's barrier knows that everybody has left tile t - 1. Where registers and
// shared memory are short (Shape::kLate), one buffer, filled between tiles.
#pragma once

#include "../matrix/roles.h"
#include "../target/words.h"
#include "dims.h"
#include "schedule.h"

namespace rocmforge {

template <class R, int HeadSize, class Shape>
class StagedKeys {
 public:
  using T = typename R::T;
  using D = Dims<HeadSize, R::kDims, Shape::kRun>;

  static constexpr int kTileKeys = Shape::kPvGroups * R::kPvKeys;
  static_assert(Shape::kKeyWaves == 1);
  static constexpr int kPieces = ceil_div(HeadSize, R::kPieceDims);
  static constexpr int kThreads = Shape::kRowWaves * R::kWave;
  static constexpr int kChunk = 16 / sizeof(T);  // elements a thread moves at once
  static constexpr int kRowChunks = HeadSize / kChunk;
  static constexpr int kChunks = kTileKeys * kRowChunks;
  static constexpr int kPasses = ceil_div(kChunks, kThreads);
  // Rows are padded so that lanes that read different rows at once hit different banks.
  static constexpr int kKeyRow = HeadSize + Shape::kKeyPad;
  static constexpr int kValueRow = HeadSize + Shape::kValuePad;

  static constexpr int kBuffers = Shape::kLate ? 1 : 2;

  struct alignas(16) Shared {
    T keys[kBuffers][kTileKeys][kKeyRow];
    T values[kBuffers][kTileKeys][kValueRow];
  };

  RF_DEVICE StagedKeys(const AttentionArgs& args, Shared& shared, int request, int head, KeySpan seen, int)
      : args_(args),
        shared_(shared),
        cache_(static_cast<const T*>(args.cache) + head * args.cache_head_stride),
        table_(args.block_table + request * args.block_table_stride),
        seen_(seen) {}

  RF_DEVICE void start(int tile, int end) {
    end_ = end;
    buffer_ = 0;
    if constexpr (Shape::kLate) {
      fill_late(tile);
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
    if (!Shape::kLate && more_) {
      if constexpr (kAsyncCopy) copy(buffer_ ^ 1);
      else fetch();
    }
  }
  RF_DEVICE void next_keys(int) {}

  RF_DEVICE void next(int tile) {
    if constexpr (Shape::kLate) {
      barrier();  // everybody has left the tile
      fill_late(tile);
    } else {
      if (more_) {
        store(buffer_ ^ 1);
        find_rows(tile + 1);
      }
      buffer_ ^= 1;
    }
  }

  RF_DEVICE void finish() { barrier(); }

  template <int J, int P>
  RF_DEVICE void key_piece(typename R::KeyOperand* out) const {
    const int l = lane<R::kWave>();
    const T* const row = shared_.keys[buffer_][J * R::kKeys + R::operand_row(l)];
    const int dim = (P * R::kGroups + R::group(l)) * R::kPiece;
    Words<T, R::kPiece> piece{};
    if (HeadSize % R::kPieceDims == 0 || dim < HeadSize) piece = load_words<T, R::kPiece>(row + dim);
    R::split(piece, out);
  }

  template <int G, int Op, int Band>
  RF_DEVICE void value_runs(Words<T, D::width(Band)> (&out)[R::kKeyElements]) const {
    const int l = lane<R::kWave>();
    unrolled<R::kKeyElements>([&](auto e) {
      const T* const row = shared_.values[buffer_][G * R::kPvKeys + R::template value_key<Op, e>(l)];
      out[e] = load_words<T, D::width(Band)>(row + D::run_start(Band, R::operand_row(l)));
    });
  }

  // Of output tile N, by reads that transpose: 16 lanes share four keys' 16 dims.
  template <int G, int Op, int N>
  RF_DEVICE typename R::KeyOperand value_operand() const {
    const int l = lane<R::kWave>();
    Words<T, R::kKeyElements> out;
    unrolled<R::kKeyElements / 4>([&](auto part) {
      const int key = G * R::kPvKeys + R::template value_key<Op, 4 * part>(l) + l % 16 / 4;
      const Words<T, 4> four = load_transposed<R::kWave>(&shared_.values[buffer_][key][N * R::kDims + l % 4 * 4]);
      out.word[2 * part] = four.word[0];
      out.word[2 * part + 1] = four.word[1];
    });
    return vector_at<typename R::KeyOperand>(out);
  }

 private:
  // Nothing of it stays in registers past here.
  RF_DEVICE void fill_late(int tile) {
    find_rows(tile);
    if (!more_) return;
    if constexpr (kAsyncCopy) copy(0);
    else fetch();
    store(0);
  }

  // Where this thread's chunks of a tile lie in the cache. Keys outside the range that may be read are replaced by the
  // nearest one inside: they are masked, but their pages may hold NaN.
  RF_DEVICE void find_rows(int tile) {
    more_ = tile < end_;
    if (!more_) return;
    RF_UNROLL
    for (int i = 0; i < kPasses; ++i) {
      const int chunk = min(thread_index() + i * kThreads, kChunks - 1);
      const int key = max(seen_.first, min(tile * kTileKeys + chunk / kRowChunks, seen_.last));
      const Quotient at = divide(key, args_.block_size);
      source_[i] = cache_ + table_[at.quotient] * args_.cache_block_stride +
                   at.remainder * args_.cache_token_stride + chunk % kRowChunks * kChunk;
    }
  }

  // A tile's chunks that this thread moves: f(i, row, column).
  template <class F>
  RF_DEVICE static void each_chunk(F&& f) {
    unrolled<kPasses>([&](auto i) {
      const int chunk = thread_index() + i * kThreads;
      if (kChunks % kThreads == 0 || chunk < kChunks) f(i, chunk / kRowChunks, chunk % kRowChunks * kChunk);
    });
  }

  RF_DEVICE void copy(int buffer) {
    each_chunk([&](auto i, int row, int column) {
      copy_async16(&shared_.keys[buffer][row][column], source_[i]);
      copy_async16(&shared_.values[buffer][row][column], source_[i] + HeadSize);
    });
    copy_commit();
  }

  // Where there is no asynchronous copy, a tile waits in registers until its buffer is free.
  RF_DEVICE void fetch() {
    each_chunk([&](auto i, int, int) {
      held_keys_[i] = load_words<T, kChunk>(source_[i]);
      held_values_[i] = load_words<T, kChunk>(source_[i] + HeadSize);
    });
  }

  RF_DEVICE void store(int buffer) {
    if constexpr (!kAsyncCopy) {
      each_chunk([&](auto i, int row, int column) {
        store_words(&shared_.keys[buffer][row][column], held_keys_[i]);
        store_words(&shared_.values[buffer][row][column], held_values_[i]);
      });
    }
  }

  const AttentionArgs& args_;
  Shared& shared_;
  const T* cache_;
  const int32_t* table_;
  KeySpan seen_;
  int end_ = 0, buffer_ = 0;
  bool more_ = false;  // source_ names a tile still to be moved
  const T* source_[kPasses];
  Words<T, kChunk> held_keys_[kPasses], held_values_[kPasses];
};

}  // namespace rocmforge
