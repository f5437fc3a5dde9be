// SPDX-License-Identifier: Apache-2.0
// A lane's work: one item of up to Heads heads of one token.
#pragma once

#include "row.h"

namespace rocmforge {

template <class T>
struct HeadGroup {
  const T* source;  // the first head's row
  T* target;
  int64_t source_stride, target_stride;  // between heads
  int heads;                             // 0: nothing to do
};

// Group `index` of `heads` heads in groups of `size`.
template <class T>
RF_DEVICE HeadGroup<T> head_group(const T* source, int64_t source_stride, T* target, int64_t target_stride, int heads,
                                  int size, int index) {
  const int first = index * size;
  return {source + first * source_stride, target + first * target_stride, source_stride, target_stride,
          min(size, heads - first)};
}

template <class T, int N, int Heads>
struct GroupBits {
  ItemBits<T, N> head[Heads];
};

// Of heads that the group does not have, the first's.
template <int Heads, class T, int N>
RF_DEVICE GroupBits<T, N, Heads> load_group(const HeadGroup<T>& group, const Item<N>& item) {
  GroupBits<T, N, Heads> bits;
  RF_UNROLL
  for (int h = 0; h < Heads; ++h) {
    bits.head[h] = load_item<T, N>(group.source + (h < group.heads ? h : 0) * group.source_stride, item);
  }
  return bits;
}

// Applies change(values, h) to every head's values, in float, and stores them rounded; a head's bits move as they are
// where `plain`.
template <class T, int N, int Heads, class Change>
RF_DEVICE void store_group(const HeadGroup<T>& group, const Item<N>& item, const GroupBits<T, N, Heads>& bits,
                           bool plain, const Change& change) {
  RF_UNROLL
  for (int h = 0; h < Heads; ++h) {
    if (h < group.heads) {
      T* row = group.target + h * group.target_stride;
      if (plain) {
        store_item(row, item, bits.head[h]);
      } else {
        auto values = to_floats(bits.head[h]);
        change(values, h);
        store_item(row, item, from_floats<T>(values));
      }
    }
  }
}

}  // namespace rocmforge
