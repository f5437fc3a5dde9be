// SPDX-License-Identifier: Apache-2.0
// How keys and values lie in memory and how they become what the matrix core multiplies. A format is a template of the
// element, the key dims and the value dims, with
//   Stored, Element        as an element lies in the cache; as it is multiplied, and as queries and results are
//   kKeyDims, kValueDims   elements of a key, and of a value
//   kRowElements           of Stored in a key's row, its value's included where that lies in it
//   kValuesInKey           whether a value is the first part of its key, so that a tile of keys is one of values too
//   kApart                 whether values have rows of their own (KeyPages::values), and neither keys nor they pages
//   kNarrow                whether heads may have fewer dims, as many as the launch says: a multiple of kNarrowStep
//   kQueryPart             dims of the first of the two tensors that queries come in; kKeyDims where they come in one
//   key_at(), value_at()   elements from a row's start to its key's, and to its value's
//   unpack(words)          words of Stored as words of Element
//   key_scale(pages, head), value_scale(pages, head)
//                          what a KV head's keys, and its values, are multiplied with; 1 costs nothing
#pragma once

#include "../../target/words.h"
#include "../args.h"

namespace rocmforge {

template <class F>
concept KeyFormat = requires(const KeyPages& pages, Words<typename F::Stored, 8> stored) {
  typename F::Element;
  F::kKeyDims;
  F::kValueDims;
  F::kRowElements;
  F::kValuesInKey;
  F::kApart;
  F::kNarrow;
  F::kQueryPart;
  { F::key_at() } -> SameAs<int>;
  { F::value_at() } -> SameAs<int>;
  { F::unpack(stored) } -> SameAs<Words<typename F::Element, 8>>;
  { F::key_scale(pages, 0) } -> SameAs<float>;
  { F::value_scale(pages, 0) } -> SameAs<float>;
};

// A key, then its value, in the dtype of the queries.
template <class T, int KeyDims, int ValueDims>
struct Joined {
  using Stored = T;
  using Element = T;
  static constexpr int kKeyDims = KeyDims, kValueDims = ValueDims;
  static constexpr int kRowElements = KeyDims + ValueDims;
  static constexpr bool kValuesInKey = false, kApart = false, kNarrow = false;
  static constexpr int kQueryPart = KeyDims;

  RF_DEVICE static constexpr int key_at() { return 0; }
  RF_DEVICE static constexpr int value_at() { return kKeyDims; }
  template <int N>
  RF_DEVICE static Words<Element, N> unpack(const Words<Stored, N>& words) {
    return words;
  }
  RF_DEVICE static constexpr float key_scale(const KeyPages&, int) { return 1.0f; }
  RF_DEVICE static constexpr float value_scale(const KeyPages&, int) { return 1.0f; }
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): all heads share a key, a latent vector and
// behind it the rotated dims, and the latent is the value. Queries are absorbed ones: theirs come apart likewise.
template <class T, int KeyDims, int ValueDims>
struct Latent : Joined<T, KeyDims, ValueDims> {
  static_assert(ValueDims <= KeyDims);
  static constexpr int kRowElements = KeyDims;
  static constexpr bool kValuesInKey = true;
  static constexpr int kQueryPart = ValueDims;

  RF_DEVICE static constexpr int value_at() { return 0; }
};

// Keys and values in two tensors, as a projection leaves them. There are no decode kernels.
template <class T, int KeyDims, int ValueDims>
struct Split : Joined<T, KeyDims, ValueDims> {
  static constexpr int kRowElements = KeyDims;
  static constexpr bool kApart = true;

  RF_DEVICE static constexpr int value_at() { return 0; }
};

// Heads of fewer dims than the kernel's. Dims past theirs are read from their last ones, so that nothing outside of
// their rows is touched: queries are zero there, and results of values are not written. The host knows how long a
// row is.
inline constexpr int kNarrowStep = 8;

template <class T, int KeyDims, int ValueDims>
struct Narrow : Joined<T, KeyDims, ValueDims> {
  static_assert(KeyDims == ValueDims);
  static constexpr int kRowElements = 0;
  static constexpr bool kNarrow = true;
};
template <class T, int KeyDims, int ValueDims>
struct NarrowSplit : Split<T, KeyDims, ValueDims> {
  static_assert(KeyDims == ValueDims);
  static constexpr int kRowElements = 0;
  static constexpr bool kNarrow = true;
};

// Dims of a key, and of a value.
template <class F>
RF_DEVICE int key_dims(const KeyPages& pages) {
  if constexpr (F::kNarrow) return pages.dims;
  else return F::kKeyDims;
}
template <class F>
RF_DEVICE int value_dims(const KeyPages& pages) {
  if constexpr (F::kNarrow) return pages.dims;
  else return F::kValueDims;
}

// Elements from a row's start to a run of `width` of its key's dims from `dim` on, or of its value's. Runs are
// kNarrowStep long at most and start at multiples of their length.
template <class F>
RF_DEVICE int key_column(const KeyPages& pages, int dim, int width) {
  if constexpr (F::kNarrow) return min(dim, pages.dims - width);
  else return F::key_at() + dim;
}
template <class F>
RF_DEVICE int value_column(const KeyPages& pages, int dim, int width) {
  if constexpr (F::kNarrow) return (F::kApart ? 0 : pages.dims) + min(dim, pages.dims - width);
  else return F::value_at() + dim;
}

}  // namespace rocmforge
