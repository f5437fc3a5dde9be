// SPDX-License-Identifier: Apache-2.0
// Python's view of the causal mask.
#include <algorithm>

#include "bindings.h"
#include "conditions.h"
#include "launch/mask.h"
#include "tensor.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

struct MaskTensors {
  TensorView scores;
  int64_t cache_len;

  int64_t rows() const { return scores.shape[scores.dims - 2]; }
  int64_t columns() const { return scores.last_shape(); }
};

// The leading dimensions, the last first, with every one merged that continues the one before it.
struct BatchDims {
  explicit BatchDims(const TensorView& scores) {
    for (int i = scores.dims - 3; i >= 0; --i) {
      const int64_t size = scores.shape[i], stride = scores.stride[i];
      if (size == 1) continue;
      if (count > 0 && count <= kMaskBatchDims && stride == strides[count - 1] * sizes[count - 1]) {
        sizes[count - 1] *= size;
      } else if (count++ < kMaskBatchDims) {
        sizes[count - 1] = size;
        strides[count - 1] = stride;
      }
    }
  }

  int count = 0;  // more than kMaskBatchDims: too many, and only the first are here
  std::array<int64_t, kMaskBatchDims> sizes{}, strides{};
};

constexpr auto kConditions = std::to_array<Condition<MaskTensors>>({
    {"scores", "tensor", [](const MaskTensors& t) { return t.scores.readable; }},
    {"scores", "dtype", [](const MaskTensors& t) { return is_element(t.scores.type); }},
    {"scores", "shape", [](const MaskTensors& t) { return t.scores.dims >= 2; }},
    {"cache_len", "least", [](const MaskTensors& t) { return t.cache_len >= 0; }},
    {"scores", "size",
     [](const MaskTensors& t) {
       constexpr int64_t kMost = int64_t{1} << 31;
       const int64_t size = size_of(t.scores);
       return size == 0 || (t.columns() < kMost && size / t.columns() < kMost);
     }},
    {"scores", "own", [](const MaskTensors& t) { return is_own(t.scores); }},
    {"scores", "batch_dims", [](const MaskTensors& t) { return BatchDims(t.scores).count <= kMaskBatchDims; }},
});

Refusal causal_mask(OpDevice& device, Stream stream, py::handle scores, int64_t cache_len) {
  const MaskTensors tensors{TensorView(scores), cache_len};
  if (Refusal refusal = first_failed<kConditions>(tensors)) return refusal;
  if (size_of(tensors.scores) == 0) return {};
  const TensorView& view = tensors.scores;
  const BatchDims batch(view);
  CausalMaskCall call{.element = view.element(),
                      .scores = view.data,
                      .rows = tensors.rows(),
                      .columns = tensors.columns(),
                      .row_stride = view.stride[view.dims - 2],
                      .column_stride = view.last_stride(),
                      .batch_dims = batch.count,
                      .batch_size = batch.sizes,
                      .batch_stride = batch.strides,
                      .cache_len = std::min(cache_len, tensors.columns())};
  ReleaseGil released(device);
  launch_causal_mask(device, stream, call);
  return {};
}

}  // namespace

void bind_mask(py::module_& module) {
  list_conditions(module, "causal_mask", kConditions);
  module.attr("mask_batch_dims") = kMaskBatchDims;
  module.def("causal_mask", &causal_mask);
}

}  // namespace rocmforge
