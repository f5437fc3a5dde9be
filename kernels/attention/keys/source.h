// SPDX-License-Identifier: Apache-2.0
// Where keys lie: from a request, a KV head and a key's position to its row, through the block table if there is one.
#pragma once

#include "../../division/divide.h"
#include "../args.h"
#include "../problem/key_format.h"
#include "../problem/mask.h"

namespace rocmforge {

inline constexpr int kSpan = 16;  // cache blocks are multiples of 16 keys, so 16 aligned keys lie together

// Keys that may be read; others, even if the block table names a page for them, may hold NaN. Those are replaced by the
// nearest one that is seen: they are masked.
class SeenKeys {
 public:
  RF_DEVICE KeySpan seen() const { return seen_; }
  RF_DEVICE int nearest(int key) const { return max(seen_.first, min(key, seen_.last)); }
  // Of the starts of spans.
  RF_DEVICE int nearest_span(int key) const { return max(seen_.first & -kSpan, min(key, seen_.last & -kSpan)); }

 protected:
  KeySpan seen_;
};

template <class Format>
class Source : public SeenKeys {
 public:
  using Stored = typename Format::Stored;
  using Place = const Stored*;  // where a row is, or a column of it

  RF_DEVICE Source(const KeyPages& pages, int request, int head, KeySpan seen) : pages_(pages) {
    move(request, head, seen);
  }
  RF_DEVICE void move(int request, int head, KeySpan seen) {
    head_ = static_cast<const Stored*>(pages_.data) + head * pages_.head_stride;
    table_ = pages_.block_table + request * pages_.table_stride;
    seen_ = seen;
  }

  // A row lies at rows() + page_at(page(key)) + in_page(key), in elements.
  RF_DEVICE Place rows() const { return head_; }
  RF_DEVICE int page(int key) const { return table_[divide(key, pages_.block_size).quotient]; }
  RF_DEVICE int64_t page_at(int page) const { return page * pages_.block_stride; }
  RF_DEVICE int64_t in_page(int key) const { return divide(key, pages_.block_size).remainder * pages_.token_stride; }
  RF_DEVICE int64_t stride() const { return pages_.token_stride; }  // of the rows of a page
  // A row's key and its value, from `column` of theirs on.
  RF_DEVICE const Stored* key(Place row, int column) const { return row + key_at(column, kChunk); }
  RF_DEVICE const Stored* value(Place row, int column) const { return row + value_at(column, kChunk); }
  // Elements from a row's start to `width` of its key's dims, or of its value's.
  RF_DEVICE int key_at(int dim, int width) const { return key_column<Format>(pages_, dim, width); }
  RF_DEVICE int value_at(int dim, int width) const { return value_column<Format>(pages_, dim, width); }

 private:
  static constexpr int kChunk = 16 / sizeof(Stored);  // elements that are copied at once
  const KeyPages& pages_;
  const Stored* head_;
  const int32_t* table_;
};

// Without pages a request's rows follow one another, and a row is known by its number: keys and values have each a
// stride of their own.
template <class Format>
  requires(Format::kApart)
class Source<Format> : public SeenKeys {
 public:
  using Stored = typename Format::Stored;
  using Place = int64_t;

  RF_DEVICE Source(const KeyPages& pages, int request, int head, KeySpan seen) : pages_(pages) {
    move(request, head, seen);
  }
  RF_DEVICE void move(int request, int head, KeySpan seen) {
    keys_ = static_cast<const Stored*>(pages_.data) + head * pages_.head_stride;
    values_ = static_cast<const Stored*>(pages_.values.data) + head * pages_.values.head_stride;
    first_ = pages_.block_table[request * pages_.table_stride];
    seen_ = seen;
  }

  RF_DEVICE Place rows() const { return 0; }
  RF_DEVICE int page(int) const { return first_; }
  RF_DEVICE int64_t page_at(int page) const { return page; }
  RF_DEVICE int64_t in_page(int key) const { return key; }
  RF_DEVICE int64_t stride() const { return 1; }
  RF_DEVICE const Stored* key(Place row, int column) const {
    return keys_ + row * pages_.token_stride + key_column<Format>(pages_, column, kChunk);
  }
  RF_DEVICE const Stored* value(Place row, int column) const {
    return values_ + row * pages_.values.token_stride + value_column<Format>(pages_, column, kChunk);
  }

 private:
  static constexpr int kChunk = 16 / sizeof(Stored);
  const KeyPages& pages_;
  const Stored *keys_, *values_;
  int first_;
};

}  // namespace rocmforge
