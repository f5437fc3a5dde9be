// SPDX-License-Identifier: Apache-2.0
// What rocmforge needs of libamdhip64, without a GPU: device memory is the process's own, kernels are executed. One
// device, whose architecture and size are given before it is opened.
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "api.h"
#include "image.h"

namespace amdgpu {

namespace {

constexpr int kInvalidValue = 1, kInvalidDevice = 101, kInvalidImage = 200, kNotFound = 500, kLaunchFailure = 719;

// The kernel of a code object, decoded; null where that fails, after amdgpu_hip_error. Called with the file's bytes and
// the address at which its virtual address 0 lies.
using Decode = void* (*)(const void* file, uint64_t size, uint64_t base, const char* kernel);

struct Module {
  const std::string& file;
  Image image;

  explicit Module(const std::string& bytes)
      : file(bytes), image(reinterpret_cast<const uint8_t*>(file.data()), file.size()) {}
};

struct {
  Decode decode = nullptr;
  std::string arch;
  int compute_units = 0;
  int capturing = 0;
  std::mutex mutex;
  std::string error;
  std::map<std::string, std::unique_ptr<Module>> modules;  // by what is in them: equal ones are one, and stay
} gpu;

int failed(int code, const std::string& why) {
  std::lock_guard lock(gpu.mutex);
  gpu.error = why;
  return code;
}

}  // namespace

extern "C" {

void amdgpu_hip_connect(Decode decode) { gpu.decode = decode; }

void amdgpu_hip_device(const char* arch, int compute_units) {
  gpu.arch = arch;
  gpu.compute_units = compute_units;
}

// Whether streams are said to be captured; launches run all the same.
void amdgpu_hip_capture(int capturing) { gpu.capturing = capturing; }

void amdgpu_hip_error(const char* text) { failed(0, text); }

const char* hipGetErrorString(int) {
  static thread_local std::string text;
  std::lock_guard lock(gpu.mutex);
  text = gpu.error;
  return text.c_str();
}

int hipGetDevicePropertiesR0600(char* properties, int device) {
  if (device != 0) return failed(kInvalidDevice, "there is one device, number 0");
  std::memset(properties, 0, 1472);
  std::strcpy(properties, "emulated AMD GPU");
  std::strcpy(properties + 1160, gpu.arch.c_str());  // gcnArchName
  return 0;
}

int hipDeviceGetAttribute(int* value, int, int) {
  *value = gpu.compute_units;
  return 0;
}

int hipGetDevice(int* device) {
  *device = 0;
  return 0;
}

int hipSetDevice(int) { return 0; }

int hipStreamIsCapturing(void*, int* status) {
  *status = gpu.capturing;
  return 0;
}

int hipThreadExchangeStreamCaptureMode(int*) { return 0; }

int hipModuleUnload(void*) { return 0; }

int hipModuleLoadData(void** module, const void* image) {
  const auto* const file = static_cast<const char*>(image);
  std::string bytes(file, Image::size_of(static_cast<const uint8_t*>(image)));
  try {
    std::lock_guard lock(gpu.mutex);
    auto& [contents, known] = *gpu.modules.try_emplace(std::move(bytes)).first;
    if (!known) known = std::make_unique<Module>(contents);
    *module = known.get();
  } catch (const std::exception& error) {
    return failed(kInvalidImage, error.what());
  }
  return 0;
}

int hipModuleGetFunction(void** function, void* module, const char* name) {
  const auto& m = *static_cast<Module*>(module);
  if (!gpu.decode) return failed(kNotFound, "no decoder is connected");
  *function = gpu.decode(m.file.data(), m.file.size(), m.image.base(), name);
  return *function ? 0 : kNotFound;
}

int hipModuleLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void*, void** params, void** extra) {
  if (extra) return failed(kInvalidValue, "arguments are taken from kernelParams only");
  const uint32_t grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
  const std::string problem = launch_with(*static_cast<Kernel*>(function), grid, block, shared, params);
  return problem.empty() ? 0 : failed(kLaunchFailure, problem);
}

}  // extern "C"

}  // namespace amdgpu
