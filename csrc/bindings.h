// SPDX-License-Identifier: Apache-2.0
// The Python side of the host module: a bind function for each op, in launch/bind_*.cpp.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>

#include "launch/op_kernels.h"

namespace rocmforge {

// Each adds an op's functions to the module, and the names of its conditions.
void bind_attention(pybind11::module_& module);
void bind_latent(pybind11::module_& module);
void bind_cache(pybind11::module_& module);
void bind_mask(pybind11::module_& module);
void bind_position(pybind11::module_& module);
void bind_varlen(pybind11::module_& module);  // after bind_attention, whose planners it takes
// Adds use_torch, which comes before any op.
void bind_tensor(pybind11::module_& module);

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
