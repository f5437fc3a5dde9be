// SPDX-License-Identifier: Apache-2.0
// causal_mask: -inf into the future scores, in place. Strides count elements.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/mask/args.h"
#include "launch/op_kernels.h"

namespace rocmforge {

struct CausalMaskCall {
  Element element;
  uintptr_t scores;
  int64_t rows, columns, row_stride, column_stride;
  int batch_dims;
  std::array<int64_t, kMaskBatchDims> batch_size, batch_stride;  // the last dimension first
  int64_t cache_len;
};

void launch_causal_mask(OpDevice& device, Stream stream, const CausalMaskCall& call);

}  // namespace rocmforge
