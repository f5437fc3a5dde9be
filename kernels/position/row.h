// SPDX-License-Identifier: Apache-2.0
// One lane's share of a head's row: which elements, and their rotation in float.
#pragma once

#include "../target/words.h"
#include "rope_table.h"

namespace rocmforge {

// Two vectors of N elements. In both pair layouts they lie half a part apart, so that neighbouring lanes touch
// neighbouring memory; with interleaved pairs each vector holds whole pairs (one element a vector: the two of a pair).
template <int N>
struct Item {
  int low, high;  // first element of each vector; high is low where has_high is not
  bool has_high;  // the elements behind the rotated ones may be an odd number of vectors
  int part;       // -1: the elements only move
  int first[2];   // pairs, as load_cos_sin takes them
};

template <int N>
RF_DEVICE Item<N> rotary_item(const RowShape& shape, int index) {
  const Quotient part = divide(index, shape.part_items);
  const int half = shape.rotary_dim / 2;
  const int start = part.quotient * shape.rotary_dim;
  const int offset = part.remainder * N;
  Item<N> item{start + offset, start + offset + half, true, part.quotient, {offset, offset + N / 2}};
  if (shape.interleaved) {
    if constexpr (N == 1) {
      item.low = start + 2 * offset;
      item.high = item.low + 1;
    } else {
      item.first[0] = offset / 2;
      item.first[1] = (half + offset) / 2;
    }
  }
  return item;
}

// Item `index` of the `items` that cover `count` elements from `start` on and only move.
template <int N>
RF_DEVICE Item<N> plain_item(int start, int count, int items, int index) {
  const int low = start + index * N;
  const int high = low + items * N;
  const bool has_high = high < start + count;
  return {low, has_high ? high : low, has_high, -1, {0, 0}};
}

template <int N>
RF_DEVICE Item<N> row_item(const RowShape& shape, int index) {
  if (index < shape.rotary_items) return rotary_item<N>(shape, index);
  const int start = shape.parts * shape.rotary_dim;
  return plain_item<N>(start, shape.head_size - start, shape.items - shape.rotary_items, index - shape.rotary_items);
}

template <class T, int N>
struct ItemBits {
  Words<T, N> low, high;
};

// Without a branch: behind one, a compiler may wait for one load before it issues the next.
template <class T, int N>
RF_DEVICE ItemBits<T, N> load_item(const T* row, const Item<N>& item) {
  return {load_words<T, N>(row + item.low), load_words<T, N>(row + item.high)};
}

template <class T, int N>
RF_DEVICE void store_item(T* row, const Item<N>& item, const ItemBits<T, N>& bits) {
  store_words(row + item.low, bits.low);
  if (item.has_high) store_words(row + item.high, bits.high);
}

template <int N>
struct ItemFloats {
  float x[2 * N];  // low, then high
};

template <class T, int N>
RF_DEVICE ItemFloats<N> to_floats(const ItemBits<T, N>& bits) {
  ItemFloats<N> out;
  RF_UNROLL
  for (int i = 0; i < N; ++i) {
    out.x[i] = float_at(bits.low, i);
    out.x[N + i] = float_at(bits.high, i);
  }
  return out;
}

// As if no value were NaN, which is right for those that arise here too: a NaN out of 16-bit inputs has no bits that
// rounding could carry.
template <class T, int N>
RF_DEVICE Words<T, N> round_words(const float* values) {
  Words<T, N> out;
  RF_UNROLL
  for (int i = 0; i < out.kCount; ++i) {
    if constexpr (sizeof(T) == 4) out.word[i] = float_to_bits(values[i]);
    else if constexpr (N == 1) out.word[i] = from_finite<T>(values[i]).bits;
    else out.word[i] = pack2_finite<T>(values[2 * i], values[2 * i + 1]);  // some targets round two at a time
  }
  return out;
}

template <class T, int N>
RF_DEVICE ItemBits<T, N> from_floats(const ItemFloats<N>& values) {
  return {round_words<T, N>(values.x), round_words<T, N>(values.x + N)};
}

namespace detail {
// Pair i is (x[i * Step], x[i * Step + Apart]).
template <int Step, int Apart, int N>
RF_DEVICE void rotate_pairs(ItemFloats<N>& values, const CosSin<N>& table) {
  RF_UNROLL
  for (int i = 0; i < N; ++i) {
    const float a = values.x[i * Step];
    const float b = values.x[i * Step + Apart];
    // Spelled out: left to the compiler, kernels would differ in the last bit.
    values.x[i * Step] = __builtin_fmaf(a, table.cos[i], -(b * table.sin[i]));
    values.x[i * Step + Apart] = __builtin_fmaf(b, table.cos[i], a * table.sin[i]);
  }
}
}  // namespace detail

template <int N>
RF_DEVICE void rotate(ItemFloats<N>& values, const CosSin<N>& table, bool interleaved) {
  if (interleaved) detail::rotate_pairs<2, 1>(values, table);
  else detail::rotate_pairs<1, N>(values, table);
}

}  // namespace rocmforge
