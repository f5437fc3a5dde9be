// SPDX-License-Identifier: Apache-2.0
// How sums of products are added up. The order in which matrix and dot instructions add is not known, so results must
// not hang on it: tests run kernels in several orders.
#pragma once

namespace amdgpu {

enum class AdditionOrder : int {
  kAscending,   // the third operand first, then the products from k = 0 on
  kDescending,  // the third operand first, then the products from the last k down
  kPairwise,    // neighbouring products, then neighbouring sums; the third operand last
};

// Of the whole process; changed only while nothing runs.
inline AdditionOrder addition_order = AdditionOrder::kAscending;

}  // namespace amdgpu
