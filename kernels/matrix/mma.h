// SPDX-License-Identifier: Apache-2.0
// What a matrix core is here. One file per core defines a struct `Mma<T>` that publishes
//   kWave                          lanes that execute it together
//   kM, kN, kK; kA, kB, kC         shape of D = A B + C and elements per lane of each operand
//   a_row(l, e), a_k(l, e)         which element of A the lane's element e is; likewise b_k, b_col, c_row, c_col
//   kKeysOnRows                    attention puts keys on A's rows (S^T = K Q^T), or queries (S = Q K^T)
//   kStats, stat(r)                how many different queries a lane's C registers belong to, and which one
//   k_group(l), query_element(i)   names of the contraction slots: lane l's key operand holds slots (k_group(l), e), and
//                                  element i of a query operand is slot (k_group(l), query_element(i))
//   kHalfExchange                  the two half-waves must swap probabilities to form the next operand
//   mma(a, b, c)                   the instruction, where the hardware has it
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

// A whole wave's products at once. Lanes that hold copies of the same element (gfx11) must agree: else the product is
// NaN, as silicon would give garbage.
template <class Mma>
void host_products(void** lanes, int) {
  const auto* payload = reinterpret_cast<HostProducts<Mma>**>(lanes);
  const float nan = __builtin_nanf("");
  float a[Mma::kM][Mma::kK], b[Mma::kK][Mma::kN], c[Mma::kM][Mma::kN];
  auto gather = [&](float& to, float value, bool first) { to = first || to == value ? value : nan; };
  for (int p = 0; p < payload[0]->count; ++p) {
    const int ia = p * payload[0]->stride_a, ib = p * payload[0]->stride_b, ic = p * payload[0]->stride_c;
    for (int l = 0; l < Mma::kWave; ++l) {
      for (int e = 0; e < Mma::kA; ++e)
        gather(a[Mma::a_row(l, e)][Mma::a_k(l, e)], to_float(payload[l]->a[ia][e]), l * Mma::kA < Mma::kM * Mma::kK);
      for (int e = 0; e < Mma::kB; ++e)
        gather(b[Mma::b_k(l, e)][Mma::b_col(l, e)], to_float(payload[l]->b[ib][e]), l * Mma::kB < Mma::kK * Mma::kN);
    }
    for (int i = 0; i < Mma::kM; ++i)
      for (int j = 0; j < Mma::kN; ++j) c[i][j] = 0;
    for (int i = 0; i < Mma::kM; ++i)
      for (int k = 0; k < Mma::kK; ++k)
        for (int j = 0; j < Mma::kN; ++j) c[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < Mma::kWave; ++l)
      for (int r = 0; r < Mma::kC; ++r) payload[l]->c[ic][r] += c[Mma::c_row(l, r)][Mma::c_col(l, r)];
  }
}

}  // namespace detail

// c[i * SC] += a[i * SA] b[i * SB] for i < Count: SC = 0 contracts over a long dimension, SA or SB = 0 reuses an operand.
template <class Mma, int Count, int SC, int SA, int SB>
RF_DEVICE void products(Accumulator<Mma>* c, const OperandA<Mma>* a, const OperandB<Mma>* b) {
  if constexpr (kHostTarget) {
    detail::HostProducts<Mma> mine{c, a, b, Count, SC, SA, SB};
    host_wave_collective(&mine, detail::host_products<Mma>);
  } else {
    RF_UNROLL
    for (int i = 0; i < Count; ++i) c[i * SC] = Mma::mma(a[i * SA], b[i * SB], c[i * SC]);
  }
}

}  // namespace rocmforge
