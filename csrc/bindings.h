// SPDX-License-Identifier: Apache-2.0
// The Python side of the host module: each part defines its bind function and is named here.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "runtime/kernel.h"

namespace rocmforge {

// Adds functions to the module. Arguments are plain integers (pointers, strides, streams) that Python has checked, but
// for attention's tensors.
#define ROCMFORGE_OPS(OP) OP(causal_mask) OP(kv_write) OP(rotary) OP(rotary_kv_write) OP(attention) OP(tensor)

#define ROCMFORGE_DECLARE(op) void bind_##op(pybind11::module_& module);
ROCMFORGE_OPS(ROCMFORGE_DECLARE)
#undef ROCMFORGE_DECLARE

// Lets other Python threads run while a CPU kernel does. A GPU launch is over before the lock would have changed hands.
class ReleaseGil {
 public:
  explicit ReleaseGil(const Device& device) {
    if (device.synchronous()) released_.emplace();
  }

 private:
  std::optional<pybind11::gil_scoped_release> released_;
};

}  // namespace rocmforge
