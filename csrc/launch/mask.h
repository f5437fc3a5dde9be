// SPDX-License-Identifier: Apache-2.0
// causal_mask: -inf into the future scores, in place. Strides count elements.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/element.h"
#include "runtime/kernel.h"

namespace rocmforge {

struct CausalMaskCall {
  Element element;
  uintptr_t scores;
  int64_t rows, columns, row_stride, column_stride;
  std::vector<int64_t> batch_size, batch_stride;  // at most kMaskBatchDims, the last dimension first
  int64_t cache_len;
};

void launch_causal_mask(Device& device, Stream stream, const CausalMaskCall& call);

}  // namespace rocmforge
