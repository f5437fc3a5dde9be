// SPDX-License-Identifier: Apache-2.0
// Arguments of the causal mask, shared by host and device. Strides count elements.
#pragma once

#include "../division/fast_div.h"

namespace rocmforge {

inline constexpr int kMaskBatchDims = 6;
inline constexpr int kMaskLaneSlots = 4;  // that a lane does: some stores in flight for one index calculation

// Row i of a matrix keeps its first `kept + i` elements (kept >= 1); the rest become -inf.
//
// The masked part is a staircase: row i has `masked - i` elements, rows past `rows` have none. Row i and row
// rows - 1 - i together always have the same number, so a pair is the unit of work and no lane is launched for elements
// that stay.
struct CausalMaskArgs {
  void* scores;
  int64_t row_stride, column_stride;
  int64_t batch_stride[kMaskBatchDims];
  FastDiv batch_size[kMaskBatchDims];  // the last dimension first
  FastDiv pairs;  // ceil(rows / 2): pairs of one matrix
  FastDiv pair_slots;  // slots (vectors of N elements) of a pair, counting partly filled ones
  FastDiv pair_blocks;  // blocks that share a pair; 1 where a block does several
  int64_t all_pairs;  // pairs of the whole batch
  int32_t block_pairs;  // pairs that a block does
  int32_t batch_dims;
  int32_t rows;  // with at least one masked element
  int32_t columns;
  int32_t masked;  // masked elements of row 0
};

}  // namespace rocmforge
