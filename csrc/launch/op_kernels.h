// SPDX-License-Identifier: Apache-2.0
// The kernels of the ops that move elements (mask, cache, position), of which a call takes the one that fits its
// alignment and type: found by name once a device, by one load afterwards.
#pragma once

#include <array>
#include <atomic>
#include <string>

#include "launch/element.h"
#include "launch/width.h"
#include "runtime/kernel.h"

namespace rocmforge {

class OpKernels {
 public:
  OpKernels(Device& device, const char* op) : device_(device), op_(op) {}

  Kernel& get(Width width, Element element) {
    Kernel* found = found_[static_cast<int>(width)][static_cast<int>(element)].load(std::memory_order_acquire);
    return found ? *found : find(width, element);
  }

 private:
  Kernel& find(Width width, Element element) {
    Kernel& kernel = device_.kernel(std::string(op_) + "_" + name_of(width) + "_" + name_of(element));
    found_[static_cast<int>(width)][static_cast<int>(element)].store(&kernel, std::memory_order_release);
    return kernel;
  }

  Device& device_;
  const char* op_;
  std::array<std::array<std::atomic<Kernel*>, kElements>, kWidths> found_{};
};

// A device as the launches take it.
struct OpDevice : Device {
  using Device::Device;

  OpKernels causal_mask{*this, "causal_mask"};
  OpKernels kv_write{*this, "kv_write"};
  OpKernels latent_kv_write{*this, "latent_kv_write"};
  OpKernels rotary_latent_kv_write{*this, "rotary_latent_kv_write"};
  // Without and with sections of positions.
  OpKernels rotary[2] = {{*this, "rotary"}, {*this, "mrope"}};
  OpKernels rotary_kv_write[2] = {{*this, "rotary_kv_write"}, {*this, "mrope_kv_write"}};
  OpKernels norm_rotary_kv_write[2] = {{*this, "norm_rotary_kv_write"}, {*this, "norm_mrope_kv_write"}};
};

}  // namespace rocmforge
