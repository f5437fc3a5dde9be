// SPDX-License-Identifier: Apache-2.0
// A libamdhip64 without a GPU: device memory is the process's own, and whoever set `emulated_connect` loads code and
// runs kernels. One device, whose architecture and size are given before it is opened.
#include <cstdint>
#include <cstring>
#include <string>

namespace {

// Each returns 0 or a HIP error code.
using LoadFn = int (*)(const void* image, uintptr_t* module);
using FunctionFn = int (*)(uintptr_t module, const char* name, uintptr_t* function);
using LaunchFn = int (*)(uintptr_t function, const unsigned* dims, void** params);

struct {
  LoadFn load;
  FunctionFn function;
  LaunchFn launch;
  std::string arch;
  int compute_units;
  std::string error;
  int capturing;
} gpu;

}  // namespace

extern "C" {

void emulated_connect(LoadFn load, FunctionFn function, LaunchFn launch) {
  gpu.load = load;
  gpu.function = function;
  gpu.launch = launch;
}

void emulated_device(const char* arch, int compute_units) {
  gpu.arch = arch;
  gpu.compute_units = compute_units;
}

void emulated_capture(int capturing) { gpu.capturing = capturing; }

void emulated_error(const char* text) { gpu.error = text; }

const char* hipGetErrorString(int) { return gpu.error.c_str(); }

int hipGetDevicePropertiesR0600(char* properties, int device) {
  if (device != 0) return 101;
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
  return gpu.load(image, reinterpret_cast<uintptr_t*>(module));
}

int hipModuleGetFunction(void** function, void* module, const char* name) {
  return gpu.function(reinterpret_cast<uintptr_t>(module), name, reinterpret_cast<uintptr_t*>(function));
}

int hipModuleLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void*, void** params, void** extra) {
  if (extra) return 1;
  const unsigned dims[7] = {gx, gy, gz, bx, by, bz, shared};
  return gpu.launch(reinterpret_cast<uintptr_t>(function), dims, params);
}

}  // extern "C"
