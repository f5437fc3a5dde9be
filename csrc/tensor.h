// SPDX-License-Identifier: Apache-2.0
// A torch tensor as launches see it, read without torch's headers, so that one module serves every torch.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace rocmforge {

enum class TensorType : int { kBf16, kF16, kFloat, kInt32, kOther };  // the first three numbered as Element

struct TensorView {
  static constexpr int kMaxDims = 4;

  TensorType type = TensorType::kOther;
  int device = 0;  // torch's index of a GPU, -1 the CPU
  int dims = 0;
  int64_t shape[kMaxDims] = {}, stride[kMaxDims] = {};
  uintptr_t data = 0;
};

// False, without a Python error, for what is no plain torch tensor or parameter, has no memory (meta, fake), or more
// dimensions than kMaxDims.
bool read_tensor(pybind11::handle object, TensorView& view);

// Adds use_torch, which read_tensor needs.
void bind_tensor(pybind11::module_& module);

}  // namespace rocmforge
