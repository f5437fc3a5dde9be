// SPDX-License-Identifier: Apache-2.0
// AMD GPUs. The runtime library is opened, not linked: one build serves ROCm 6 and 7, and a machine without either.
#include <cstddef>
#include <cstring>
#include <string>

#include "runtime/arch.h"
#include "runtime/errors.h"
#include "runtime/gpu.h"

namespace rocmforge {

namespace {

constexpr int kMultiprocessorCount = 63;  // hipDeviceAttributeMultiprocessorCount

// The head of hipDeviceProp_tR0600. That layout is frozen with the symbol's name since ROCm 6.0; the plain name
// hipGetDeviceProperties is still exported with the layout of ROCm 5. The tail is room for what later versions add.
struct DeviceProperties {
  char name[256];
  char others[904];
  char gcn_arch_name[256];
  char tail[2048];
};
static_assert(offsetof(DeviceProperties, gcn_arch_name) == 1160);

class HipDriver : public GpuDriver {
 public:
  HipDriver(int ordinal, Library library) : GpuDriver(std::move(library)), ordinal_(ordinal) {
    library_.bind(error_string_, "hipGetErrorString");
    library_.bind(get_properties_, "hipGetDevicePropertiesR0600");
    library_.bind(get_attribute_, "hipDeviceGetAttribute");
    library_.bind(get_device_, "hipGetDevice");
    library_.bind(set_device_, "hipSetDevice");
    bind(api_.load, "hipModuleLoadData");
    bind(api_.unload, "hipModuleUnload");
    bind(api_.function, "hipModuleGetFunction");
    bind(api_.launch, "hipModuleLaunchKernel");
    bind(api_.exchange_capture_mode, "hipThreadExchangeStreamCaptureMode");
    bind(api_.is_capturing, "hipStreamIsCapturing");

    DeviceProperties properties{};
    check(get_properties_(&properties, ordinal), "hipGetDevicePropertiesR0600");
    check(get_attribute_(&info_.compute_units, kMultiprocessorCount, ordinal), "hipDeviceGetAttribute");
    info_.name.assign(properties.name, strnlen(properties.name, sizeof(properties.name)));
    info_.arch.assign(properties.gcn_arch_name, strnlen(properties.gcn_arch_name, sizeof(properties.gcn_arch_name)));
    info_.targets = amd_targets(parse_amd_arch(info_.arch).processor);
  }

  std::optional<intptr_t> enter() override {
    int current = 0;
    check(get_device_(&current), "hipGetDevice");
    if (current == ordinal_) return std::nullopt;
    check(set_device_(ordinal_), "hipSetDevice");
    return current;
  }

  GpuStatus leave(intptr_t previous) override { return set_device_(static_cast<int>(previous)); }
  const char* leave_name() const override { return "hipSetDevice"; }

  // Shared memory is static in AMD code objects.
  void prepare(void*, const LaunchConfig&, const std::string&) override {}

 protected:
  std::string error_text(GpuStatus status) const override {
    const char* text = error_string_(status);
    return text ? text : "unknown error";
  }

 private:
  int ordinal_;
  const char* (*error_string_)(GpuStatus) = nullptr;
  GpuStatus (*get_properties_)(DeviceProperties*, int) = nullptr;
  GpuStatus (*get_attribute_)(int*, int, int) = nullptr;
  GpuStatus (*get_device_)(int*) = nullptr;
  GpuStatus (*set_device_)(int) = nullptr;
};

}  // namespace

std::unique_ptr<Driver> open_hip(int ordinal, const std::string& library) {
  static constexpr const char* kNames[] = {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so"};
  return std::make_unique<HipDriver>(
      ordinal, library.empty() ? Library::open_any("libamdhip64.so", kNames, "ROCm's HIP runtime is not installed")
                               : Library(library));
}

}  // namespace rocmforge
