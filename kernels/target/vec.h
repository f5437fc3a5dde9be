// SPDX-License-Identifier: Apache-2.0
// Vec: a small array that moves as one memory instruction (2, 4, 8 or 16 bytes; larger ones as several of 16).
#pragma once

namespace rocmforge {

namespace detail {
constexpr int vec_align(int bytes) {
  int align = 1;
  while (align < 16 && bytes % (2 * align) == 0) align *= 2;
  return align;
}
}  // namespace detail

template <class T, int N>
struct alignas(detail::vec_align(sizeof(T) * N)) Vec {
  static constexpr int kSize = N;
  T data[N];

  RF_DEVICE T& operator[](int i) { return data[i]; }
  RF_DEVICE const T& operator[](int i) const { return data[i]; }
};

template <class T, int N>
RF_DEVICE Vec<T, N> fill(T value) {
  Vec<T, N> out;
  RF_UNROLL
  for (int i = 0; i < N; ++i) out[i] = value;
  return out;
}

// Elementwise. A target with packed fp32 instructions defines RF_FLOATS, the compiler's vector of N floats.
template <int N>
RF_DEVICE Vec<float, N> fma(const Vec<float, N>& a, float b, float c) {
#if defined(RF_FLOATS)
  if constexpr (N > 1) {
    const RF_FLOATS(N) bs = b, cs = c;
    return __builtin_bit_cast(Vec<float, N>, __builtin_elementwise_fma(__builtin_bit_cast(RF_FLOATS(N), a), bs, cs));
  }
#endif
  Vec<float, N> out;
  RF_UNROLL
  for (int i = 0; i < N; ++i) out[i] = __builtin_fmaf(a[i], b, c);
  return out;
}

template <int N>
RF_DEVICE Vec<float, N> add(const Vec<float, N>& a, const Vec<float, N>& b) {
#if defined(RF_FLOATS)
  if constexpr (N > 1)
    return __builtin_bit_cast(Vec<float, N>, __builtin_bit_cast(RF_FLOATS(N), a) + __builtin_bit_cast(RF_FLOATS(N), b));
#endif
  Vec<float, N> out;
  RF_UNROLL
  for (int i = 0; i < N; ++i) out[i] = a[i] + b[i];
  return out;
}

// `pointer` must be aligned to the vector's size (at most 16 bytes).
template <class T, int N>
RF_DEVICE Vec<T, N> load_vec(const T* pointer) {
  return *reinterpret_cast<const Vec<T, N>*>(pointer);
}

template <class T, int N>
RF_DEVICE void store_vec(T* pointer, const Vec<T, N>& value) {
  *reinterpret_cast<Vec<T, N>*>(pointer) = value;
}

}  // namespace rocmforge
