// SPDX-License-Identifier: Apache-2.0
// NVIDIA GPUs, through the driver API.
#include <algorithm>
#include <string>

#include "runtime/arch.h"
#include "runtime/errors.h"
#include "runtime/gpu.h"

namespace rocmforge {

namespace {

constexpr int kMultiprocessorCount = 16;  // CU_DEVICE_ATTRIBUTE_*
constexpr int kCapabilityMajor = 75;
constexpr int kCapabilityMinor = 76;
constexpr int kUnitShared = 81;       // ..._MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
constexpr int kReservedShared = 111;  // ..._RESERVED_SHARED_MEMORY_PER_BLOCK
constexpr int kMaxDynamicShared = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kSharedCarveout = 9;    // ..._PREFERRED_SHARED_MEMORY_CARVEOUT, in percent
constexpr int kSharedWithoutAsking = 48 << 10;

// CUlaunchAttribute and CUlaunchConfig of cuda.h, as far as they are used.
struct LaunchAttribute {
  int id;
  int unused;
  union {
    int allowed;
    char size[64];
  } value;
};
struct LaunchSettings {
  unsigned grid[3], block[3], shared;
  void* stream;
  LaunchAttribute* attributes;
  unsigned count;
};
constexpr int kProgrammaticSerialization = 6;  // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION

class CudaDriver : public GpuDriver {
 public:
  CudaDriver(int ordinal, Library library) : GpuDriver(std::move(library)) {
    GpuStatus (*init)(unsigned) = nullptr;
    GpuStatus (*get_device)(int*, int) = nullptr;
    GpuStatus (*get_name)(char*, int, int) = nullptr;
    GpuStatus (*get_attribute)(int*, int, int) = nullptr;
    GpuStatus (*retain)(void**, int) = nullptr;
    library_.bind(error_string_, "cuGetErrorString");
    library_.bind(init, "cuInit");
    library_.bind(get_device, "cuDeviceGet");
    library_.bind(get_name, "cuDeviceGetName");
    library_.bind(get_attribute, "cuDeviceGetAttribute");
    library_.bind(retain, "cuDevicePrimaryCtxRetain");
    library_.bind(release_, "cuDevicePrimaryCtxRelease_v2");
    library_.bind(get_context_, "cuCtxGetCurrent");
    library_.bind(push_context_, "cuCtxPushCurrent_v2");
    library_.bind(pop_context_, "cuCtxPopCurrent_v2");
    library_.bind(set_attribute_, "cuFuncSetAttribute");
    library_.bind(launch_ex_, "cuLaunchKernelEx");
    bind(api_.load, "cuModuleLoadData");
    bind(api_.unload, "cuModuleUnload");
    bind(api_.function, "cuModuleGetFunction");
    bind(api_.launch, "cuLaunchKernel");
    bind(api_.exchange_capture_mode, "cuThreadExchangeStreamCaptureMode");
    bind(api_.is_capturing, "cuStreamIsCapturing");

    check(init(0), "cuInit");
    check(get_device(&device_, ordinal), "cuDeviceGet");
    char name[256] = {};
    check(get_name(name, sizeof(name) - 1, device_), "cuDeviceGetName");
    int major = 0;
    int minor = 0;
    check(get_attribute(&major, kCapabilityMajor, device_), "cuDeviceGetAttribute");
    check(get_attribute(&minor, kCapabilityMinor, device_), "cuDeviceGetAttribute");
    check(get_attribute(&info_.compute_units, kMultiprocessorCount, device_), "cuDeviceGetAttribute");
    check(get_attribute(&unit_shared_, kUnitShared, device_), "cuDeviceGetAttribute");
    check(get_attribute(&reserved_shared_, kReservedShared, device_), "cuDeviceGetAttribute");
    info_.name = name;
    info_.targets = cuda_targets(major, minor);
    info_.arch = info_.targets.front();
    // The context that torch uses too. Last: from here on the destructor gives it back.
    check(retain(&context_, device_), "cuDevicePrimaryCtxRetain");
  }

  ~CudaDriver() override { static_cast<void>(release_(device_)); }

  std::optional<intptr_t> enter() override {
    void* current = nullptr;
    check(get_context_(&current), "cuCtxGetCurrent");
    if (current == context_) return std::nullopt;
    check(push_context_(context_), "cuCtxPushCurrent");
    return 0;
  }

  GpuStatus leave(intptr_t) override {
    void* popped = nullptr;
    return pop_context_(&popped);
  }
  const char* leave_name() const override { return "cuCtxPopCurrent"; }

  void prepare(void* function, const LaunchConfig& config, const std::string& kernel) override {
    if (config.shared_bytes > kSharedWithoutAsking) {
      check(set_attribute_(function, kMaxDynamicShared, config.shared_bytes), "cuFuncSetAttribute", kernel);
    }
    if (config.prefers_shared) {
      // For as many workgroups as are planned. Left to itself, a multiprocessor that still runs a launch with a smaller
      // partition keeps that and takes fewer of them: 13 % of the time where four are planned.
      const int planned = config.blocks_per_unit * (config.shared_bytes + reserved_shared_);
      const int percent = std::min(100, (100 * planned + unit_shared_ - 1) / unit_shared_);
      check(set_attribute_(function, kSharedCarveout, percent), "cuFuncSetAttribute", kernel);
    }
  }

  GpuStatus start(const Function& function, const int32_t grid[3], void* stream, void** params,
                  const char*& name) override {
    if (!function.config.early) return GpuDriver::start(function, grid, stream, params, name);
    name = "cuLaunchKernelEx";
    LaunchAttribute early{.id = kProgrammaticSerialization, .unused = 0, .value = {.allowed = 1}};
    const LaunchSettings settings{
        .grid = {static_cast<unsigned>(grid[0]), static_cast<unsigned>(grid[1]), static_cast<unsigned>(grid[2])},
        .block = {static_cast<unsigned>(function.config.threads), 1, 1},
        .shared = static_cast<unsigned>(function.config.shared_bytes),
        .stream = stream,
        .attributes = &early,
        .count = 1};
    return launch_ex_(&settings, function.handle, params, nullptr);
  }

 protected:
  std::string error_text(GpuStatus status) const override {
    const char* text = nullptr;
    return error_string_(status, &text) == 0 && text ? text : "unknown error";
  }

 private:
  int device_ = 0, unit_shared_ = 0, reserved_shared_ = 0;
  void* context_ = nullptr;
  GpuStatus (*error_string_)(GpuStatus, const char**) = nullptr;
  GpuStatus (*release_)(int) = nullptr;
  GpuStatus (*get_context_)(void**) = nullptr;
  GpuStatus (*push_context_)(void*) = nullptr;
  GpuStatus (*pop_context_)(void**) = nullptr;
  GpuStatus (*set_attribute_)(void*, int, int) = nullptr;
  GpuStatus (*launch_ex_)(const LaunchSettings*, void*, void**, void**) = nullptr;
};

}  // namespace

std::unique_ptr<Driver> open_cuda(int ordinal, const std::string& library) {
  static constexpr const char* kNames[] = {"libcuda.so.1", "libcuda.so"};
  return std::make_unique<CudaDriver>(
      ordinal,
      library.empty() ? Library::open_any("libcuda.so", kNames, "NVIDIA's driver is not installed") : Library(library));
}

}  // namespace rocmforge
