// SPDX-License-Identifier: Apache-2.0
// What the runtime needs of a device: AMD through HIP, NVIDIA through the CUDA driver, or this machine's CPU.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/launch_config.h"

namespace rocmforge {

// A kernel as its module knows it.
struct Function {
  void* handle = nullptr;
  LaunchConfig config;
};

// Loaded code; unloaded when destroyed.
class Module {
 public:
  virtual ~Module() = default;
  virtual Function function(const std::string& kernel) = 0;
};

struct DeviceInfo {
  std::string name;                  // "AMD Instinct MI300X"
  std::string arch;                  // as the driver spells it: "gfx942:sramecc+:xnack-", "sm_90", "x86_64"
  int compute_units = 0;             // CUs (WGPs on RDNA), SMs or threads
  std::vector<std::string> targets;  // names of code it can run, best first
};

class Driver {
 public:
  virtual ~Driver() = default;
  const DeviceInfo& info() const { return info_; }
  // Whether launch() returns only when the kernel has ended.
  virtual bool synchronous() const { return false; }
  // Whether launches on this stream go into a graph.
  virtual bool capturing(void* /*stream*/) const { return false; }
  virtual std::unique_ptr<Module> load(const std::string& path) = 0;
  // `args` points to the kernel's one argument, passed by value. `grid` has no zero. Throws DriverError.
  virtual void launch(const Function& function, const std::string& kernel, const int32_t grid[3], void* stream,
                      const void* args) = 0;

 protected:
  DeviceInfo info_;
};

// `library` is the driver library to use instead of the system's. Nothing is initialised before the first call.
std::unique_ptr<Driver> open_hip(int ordinal, const std::string& library);
std::unique_ptr<Driver> open_cuda(int ordinal, const std::string& library);
std::unique_ptr<Driver> open_host();

}  // namespace rocmforge
