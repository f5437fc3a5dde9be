// SPDX-License-Identifier: Apache-2.0
// What a matrix core is here. One file per core defines a struct `Mma<T>` that publishes
//   kWave                          lanes that execute it together
//   kM, kN, kK; kA, kB, kC         shape of D = A B + C and elements per lane of each operand
//   a_row(l, e), a_k(l, e)         which element of A the lane's element e is; likewise b_k, b_col, c_row, c_col
//   kKeysOnRows                    attention puts keys on A's rows (S^T = K Q^T), or queries (S = Q K^T)
//   kStats, stat(r)                how many different queries a lane's C registers belong to, and which one
//   k_group(l), query_element(i)   names of the contraction slots: lane l's key operand holds slots (k_group(l), e),
//                                  and element i of a query operand is slot (k_group(l), query_element(i))
//   kGathered                      (where it exists) all lanes hold all probabilities as the next operand
//   kHalfExchange                  the two half-waves must swap probabilities to form the next operand
//   mma(a, b, c)                   the instruction, where the hardware has it
// Most cores take what they publish from contiguous.h. A core whose waves multiply together publishes more, which
// loops/warpgroup.h of attention lists.
// roles.h turns these into queries, keys and values. On the CPU target mma() is computed through the layout, so every
// core's index arithmetic runs in tests.
#pragma once

#include "../target/device.h"

namespace rocmforge {

template <class Mma>
using OperandA = Vec<typename Mma::Element, Mma::kA>;
template <class Mma>
using OperandB = Vec<typename Mma::Element, Mma::kB>;
template <class Mma>
using Accumulator = Vec<float, Mma::kC>;

namespace detail {

// One lane's part in `count` products; the strides say which operands repeat.
template <class Mma>
struct HostProducts {
  Accumulator<Mma>* c;
  const OperandA<Mma>* a;
  const OperandB<Mma>* b;
  int count, stride_c, stride_a, stride_b;
};

// Puts a lane's element where it belongs. Lanes that hold copies of one element (gfx11) must agree: else the product is
// NaN, as silicon would give garbage.
template <bool Copies>
RF_DEVICE void host_place(float& to, float value, bool first) {
  if constexpr (Copies) to = first || to == value ? value : __builtin_nanf("");
  else to = value;
}

// A whole wave's products at once. Repeated operands are placed once, and so is a sum over products.
template <class Mma>
void host_products(void** lanes, int) {
  const auto* payload = reinterpret_cast<HostProducts<Mma>**>(lanes);
  const HostProducts<Mma>& first = *payload[0];
  constexpr int kLanesA = Mma::kM * Mma::kK / Mma::kA, kLanesB = Mma::kK * Mma::kN / Mma::kB;  // without copies
  float a[Mma::kM][Mma::kK], b[Mma::kK][Mma::kN], c[Mma::kM][Mma::kN];
  for (int p = 0; p < first.count; ++p) {
    const bool new_c = p == 0 || first.stride_c, last_c = p + 1 == first.count || first.stride_c;
    if (p == 0 || first.stride_a) {
      for (int l = 0; l < Mma::kWave; ++l)
        for (int e = 0; e < Mma::kA; ++e)
          host_place<(Mma::kWave > kLanesA)>(a[Mma::a_row(l, e)][Mma::a_k(l, e)],
                                             to_float(payload[l]->a[p * first.stride_a][e]), l < kLanesA);
    }
    if (p == 0 || first.stride_b) {
      for (int l = 0; l < Mma::kWave; ++l)
        for (int e = 0; e < Mma::kB; ++e)
          host_place<(Mma::kWave > kLanesB)>(b[Mma::b_k(l, e)][Mma::b_col(l, e)],
                                             to_float(payload[l]->b[p * first.stride_b][e]), l < kLanesB);
    }
    for (int i = 0; i < Mma::kM; ++i) {
      float row[Mma::kN];
      for (int j = 0; j < Mma::kN; ++j) row[j] = new_c ? 0.0f : c[i][j];
      for (int k = 0; k < Mma::kK; ++k)
        for (int j = 0; j < Mma::kN; ++j) row[j] += a[i][k] * b[k][j];
      for (int j = 0; j < Mma::kN; ++j) c[i][j] = row[j];
    }
    if (!last_c) continue;
    for (int l = 0; l < Mma::kWave; ++l)
      for (int r = 0; r < Mma::kC; ++r) payload[l]->c[p * first.stride_c][r] += c[Mma::c_row(l, r)][Mma::c_col(l, r)];
  }
}

}  // namespace detail

// c[i * SC] += a[i * SA] b[i * SB] for i < Count: SC = 0 contracts over a long dimension, SA or SB = 0 reuses an
// operand.
template <class Mma, int Count, int SC, int SA, int SB>
RF_DEVICE void products(Accumulator<Mma>* c, const OperandA<Mma>* a, const OperandB<Mma>* b) {
  if constexpr (kHostTarget) {
    detail::HostProducts<Mma> mine{c, a, b, Count, SC, SA, SB};
    host_wave_collective(&mine, &detail::host_products<Mma>);
  } else {
    RF_UNROLL
    for (int i = 0; i < Count; ++i) c[i * SC] = Mma::mma(a[i * SA], b[i * SB], c[i * SC]);
  }
}

}  // namespace rocmforge
