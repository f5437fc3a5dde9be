// SPDX-License-Identifier: Apache-2.0
// A torch tensor as launches see it, read without torch's headers, so that one module serves every torch.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "launch/element.h"

namespace rocmforge {

enum class TensorType : int { kBf16, kF16, kFloat, kInt32, kInt64, kOther };  // the first three numbered as Element

constexpr bool is_element(TensorType type) { return type <= TensorType::kFloat; }

// Good for one call under Python's lock: shape and strides are the tensor's own.
struct TensorView {
  explicit TensorView(pybind11::handle object);
  TensorView(const TensorView&) = delete;  // shape may point into copied_

  Element element() const { return static_cast<Element>(type); }  // if is_element(type)
  int64_t last_shape() const { return shape[dims - 1]; }
  int64_t last_stride() const { return stride[dims - 1]; }

  bool given = false;     // not None
  bool readable = false;  // a plain tensor or parameter in the memory of the CPU or a GPU; else nothing below is set
  TensorType type = TensorType::kOther;
  int device = 0;  // torch's index of a GPU, -1 the CPU
  int dims = 0;
  const int64_t* shape = nullptr;
  const int64_t* stride = nullptr;  // in elements
  uintptr_t data = 0;

 private:
  bool read(pybind11::handle object);
  bool read_exchange(pybind11::handle object);
  bool read_attributes(pybind11::handle object);

  std::vector<int64_t> copied_;  // where no exchange table lends shape and strides
};

inline int64_t size_of(const TensorView& view) {
  int64_t size = 1;
  for (int i = 0; i < view.dims; ++i) size *= view.shape[i];
  return size;
}

// No two elements are one in memory, as those of an expanded tensor are, which cannot be written.
inline bool is_own(const TensorView& view) {
  for (int i = 0; i < view.dims; ++i)
    if (view.shape[i] > 1 && view.stride[i] == 0) return size_of(view) == 0;
  return true;
}

}  // namespace rocmforge
