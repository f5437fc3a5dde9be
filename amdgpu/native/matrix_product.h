// SPDX-License-Identifier: Apache-2.0
// D = A B + C of a wave: where lanes hold which elements, and the sums. Every product of 8-bit and 16-bit floats is
// exact in a float, unless it leaves a float's range, and every addition rounds to a float.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "matrix.h"
#include "matrix_elements.h"

namespace amdgpu::matrix_product {

// A shape: kBlocks products of M x K by K x M. The wave's lanes fall into groups of M. Lane c of group g holds, as its
// element e, A[c][E g + e] and B[E g + e][c], E elements in all; where there are several blocks, those take the place
// of k beyond K. Of D it holds column c, and as register r the row that Rows says.
template <int Lanes, int Size, int Depth, int Count, int HoldingGroups, class RowsOfD>
struct Shape {
  static constexpr int kLanes = Lanes, M = Size, K = Depth, kBlocks = Count;
  static constexpr int kGroups = HoldingGroups;  // that hold A and B; the others must repeat them
  static constexpr int kElements = K * kBlocks / kGroups, kResults = M * M * kBlocks / kLanes;
  using Rows = RowsOfD;
};

// Rows of D by group of lanes and register, counted over all blocks.
struct FourByGroup {  // CDNA, 16 x 16
  static constexpr int row(int group, int r) { return 16 * (r / 4) + 4 * group + r % 4; }
};
struct EightByPair {  // CDNA, 32 x 32
  static constexpr int row(int group, int r) { return 8 * (r / 4) + 4 * group + r % 4; }
};
struct BlockByGroup {  // CDNA, 4 x 4
  static constexpr int row(int group, int r) { return 4 * group + r; }
};
struct Interleaved {  // RDNA 3
  static constexpr int row(int group, int r) { return 2 * r + group; }
};
struct Halves {  // RDNA 4
  static constexpr int row(int group, int r) { return 8 * group + r; }
};

// f(c) for each column. Compilers would unroll the loop altogether, and make no vector code of it.
template <int M, class F>
[[gnu::always_inline]] inline void columns(F f) {
#pragma GCC unroll 1
  for (int c = 0; c < M; ++c) f(c);
}

// to[E g + e][c], from the registers of an operand.
template <class Element, class S, int L>
void unpack(const uint32_t (*words)[L], typename Element::Value (*to)[S::M]) {
  constexpr int kPerWord = 32 / Element::kBits, kWords = S::kElements / kPerWord;
  for (int g = 0; g < S::kGroups; ++g) {
    for (int q = 0; q < kWords; ++q) {
      const uint32_t* from = &words[q][g * S::M];
      for (int e = 0; e < kPerWord; ++e) {
        auto* row = to[(g * kWords + q) * kPerWord + e];
        columns<S::M>([&](int c) { row[c] = Element::value(from[c] >> (Element::kBits * e & 31)); });
      }
    }
  }
}

template <class T>
T multiply_add(T a, T b, T c) {
  // Not a wish for one rounding: the product is exact, and so this is the rounded sum.
  if constexpr (std::is_same_v<T, float>) return std::fma(a, b, c);
  else return static_cast<T>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b) + static_cast<uint32_t>(c));
}

template <class T>
T add(T a, T b) {
  if constexpr (std::is_same_v<T, float>) return a + b;
  else return static_cast<T>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// Some rows at a time, so that their sums stay in registers.
template <int M, int K, bool Descending, class T>
void in_order(T (*d)[M], const T (*a)[M], const T (*b)[M]) {
  constexpr int kRows = 4;
  for (int row = 0; row < M; row += kRows) {
    T sum[kRows][M];
    for (int i = 0; i < kRows; ++i) columns<M>([&](int c) { sum[i][c] = d[row + i][c]; });
    for (int step = 0; step < K; ++step) {
      const int k = Descending ? K - 1 - step : step;
      for (int i = 0; i < kRows; ++i)
        columns<M>([&](int c) { sum[i][c] = multiply_add(a[k][row + i], b[k][c], sum[i][c]); });
    }
    for (int i = 0; i < kRows; ++i) columns<M>([&](int c) { d[row + i][c] = sum[i][c]; });
  }
}

template <int M, int K, class T>
void pairwise(T (*d)[M], const T (*a)[M], const T (*b)[M]) {
  static_assert((K & (K - 1)) == 0);
  for (int row = 0; row < M; ++row) {
    T sum[K][M];
    for (int k = 0; k < K; ++k) columns<M>([&](int c) { sum[k][c] = multiply_add(a[k][row], b[k][c], T(0)); });
    for (int left = K / 2; left > 0; left /= 2) {
      for (int k = 0; k < left; ++k) columns<M>([&](int c) { sum[k][c] = add(sum[2 * k][c], sum[2 * k + 1][c]); });
    }
    columns<M>([&](int c) { d[row][c] = add(sum[0][c], d[row][c]); });
  }
}

// d += a b, block by block.
template <class S, class T>
void multiply(T (*d)[S::M], const T (*a)[S::M], const T (*b)[S::M]) {
  for (int block = 0; block < S::kBlocks; ++block, d += S::M, a += S::K, b += S::K) {
    switch (addition_order) {
      case AdditionOrder::kAscending: in_order<S::M, S::K, false>(d, a, b); break;
      case AdditionOrder::kDescending: in_order<S::M, S::K, true>(d, a, b); break;
      case AdditionOrder::kPairwise: pairwise<S::M, S::K>(d, a, b); break;
    }
  }
}

}  // namespace amdgpu::matrix_product
