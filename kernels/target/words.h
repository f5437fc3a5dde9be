// SPDX-License-Identifier: Apache-2.0
// Runs of elements as 32-bit words. What lives across loop iterations is kept so: a compiler that splits a vector of
// 16-bit elements into its elements spends a whole register on each.
#pragma once

#include "device.h"

namespace rocmforge {

template <class T, int N>
struct alignas(detail::vec_align(4 * ceil_div(N, 4 / sizeof(T)))) Words {
  static constexpr int kPerWord = 4 / sizeof(T);
  static constexpr int kCount = ceil_div(N, kPerWord);
  uint32_t word[kCount];
};

// `pointer` must be aligned to the run's size (at most 16 bytes).
template <class T, int N>
RF_DEVICE Words<T, N> load_words(const T* pointer) {
  if constexpr (sizeof(T) * N < 4) return {{*reinterpret_cast<const uint16_t*>(pointer)}};
  else return *reinterpret_cast<const Words<T, N>*>(pointer);
}

template <class T, int N>
RF_DEVICE void store_words(T* pointer, const Words<T, N>& run) {
  if constexpr (sizeof(T) * N < 4) *reinterpret_cast<uint16_t*>(pointer) = static_cast<uint16_t>(run.word[0]);
  else *reinterpret_cast<Words<T, N>*>(pointer) = run;
}

// Element i.
template <class T, int N>
RF_DEVICE float float_at(const Words<T, N>& words, int i) {
  const uint32_t word = words.word[i / Words<T, N>::kPerWord];
  if constexpr (sizeof(T) == 4) return bits_to_float(word);
  else if constexpr (__is_same(T, bf16)) return bits_to_float(i % 2 == 0 ? word << 16 : word & 0xffff0000u);
  else return f16_to_float(static_cast<uint16_t>(word >> 16 * (i % 2)));
}

// Words [first, first + the vector's) as that vector.
template <class V, class T, int N>
RF_DEVICE V vector_at(const Words<T, N>& words, int first = 0) {
  struct Part {
    uint32_t word[sizeof(V) / 4];
  } part;
  RF_UNROLL
  for (int i = 0; i < static_cast<int>(sizeof(V) / 4); ++i) part.word[i] = words.word[first + i];
  return __builtin_bit_cast(V, part);
}

template <class T, int N>
RF_DEVICE Words<T, N> words_of(const Vec<T, N>& v) {
  return __builtin_bit_cast(Words<T, N>, v);
}

// From shared memory, four elements a lane, each 16 lanes' as a 4 x 16 matrix by columns: lane i gets as element k what
// `pointer` of lane 4 k + i / 4 shows as element i % 4.
template <int Wave, class T>
RF_DEVICE Words<T, 4> load_transposed(const T* pointer) {
  static_assert(sizeof(T) == 2);
  Words<T, 4> out;
#if defined(RF_LOAD_TRANSPOSED)
  RF_LOAD_TRANSPOSED(out.word, pointer);
#else
  const Words<T, 4> read = load_words<T, 4>(pointer);
  const int l = lane<Wave>(), first = l & -16, i = l % 16;
  uint32_t element[4];
  for (int k = 0; k < 4; ++k) {
    const uint32_t low = shuffle<Wave>(read.word[0], first + 4 * k + i / 4);
    const uint32_t high = shuffle<Wave>(read.word[1], first + 4 * k + i / 4);
    element[k] = (i % 4 < 2 ? low : high) >> 16 * (i % 2) & 0xffff;
  }
  out.word[0] = element[0] | element[1] << 16;
  out.word[1] = element[2] | element[3] << 16;
#endif
  return out;
}

// Element n of each of E runs, as a vector: a transposition that costs one byte permutation per two elements.
template <class T, int E, int N>
RF_DEVICE Vec<T, E> column(const Words<T, N> (&runs)[E], int n) {
  Words<T, E> out;
  if constexpr (sizeof(T) == 4) {
    RF_UNROLL
    for (int e = 0; e < E; ++e) out.word[e] = runs[e].word[n];
  } else {
    RF_UNROLL
    for (int e = 0; e < E; e += 2) {
      const uint32_t a = runs[e].word[n / 2], b = runs[e + 1].word[n / 2];
      out.word[e / 2] = n % 2 == 0 ? low_halves(a, b) : high_halves(a, b);
    }
  }
  return __builtin_bit_cast(Vec<T, E>, out);
}

}  // namespace rocmforge
