// SPDX-License-Identifier: Apache-2.0
// How keys and values lie in memory and how they become what the matrix core multiplies. A format is a template of the
// element, the key dims and the value dims, with
//   Stored, Element        as an element lies in the cache; as it is multiplied, and as queries and results are
//   kKeyDims, kValueDims   elements of a key, and of a value
//   kRowElements           of Stored in a key's row, its value's included where that lies in it
//   kValuesInKey           whether a value is the first part of its key, so that a tile of keys is one of values too
//   kApart                 whether values have rows of their own (KeyPages::values), and neither keys nor they pages
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
  static constexpr bool kValuesInKey = false, kApart = false;
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

}  // namespace rocmforge
