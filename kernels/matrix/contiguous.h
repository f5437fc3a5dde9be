// SPDX-License-Identifier: Apache-2.0
// The layout that most cores share: lane l holds kA consecutive k's of row l % M of A, and likewise of column l % N of
// B. Lanes beyond those that the operand needs hold copies. Such a core adds its shape, c_row and the instruction.
#pragma once

#include "mma.h"

namespace rocmforge {

template <class T, int Wave, int M, int N, int K, int Elements>
struct ContiguousK {
  using Element = T;
  static constexpr int kWave = Wave, kM = M, kN = N, kK = K, kA = Elements, kB = Elements, kC = M * N / Wave;
  static constexpr bool kKeysOnRows = true, kHalfExchange = false;
  static constexpr int kStats = 1;
  using A = Vec<T, kA>;
  using C = Vec<float, kC>;

  RF_DEVICE static constexpr int k_group(int l) { return kA == kK ? 0 : l / kM; }
  RF_DEVICE static constexpr int a_row(int l, int) { return l % kM; }
  RF_DEVICE static constexpr int a_k(int l, int e) { return kA * k_group(l) + e; }
  RF_DEVICE static constexpr int b_k(int l, int e) { return a_k(l, e); }
  RF_DEVICE static constexpr int b_col(int l, int) { return l % kN; }
  RF_DEVICE static constexpr int c_col(int l, int) { return l % kN; }
  RF_DEVICE static constexpr int stat(int) { return 0; }
  RF_DEVICE static constexpr int query_element(int i) { return i; }
};

}  // namespace rocmforge
