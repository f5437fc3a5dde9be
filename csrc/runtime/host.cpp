// SPDX-License-Identifier: Apache-2.0
// This machine's CPU: kernels are symbols of one shared library, blocks are spread over the thread pool.
#include <algorithm>
#include <fstream>
#include <string>

#include "kernels/target/host_block.h"
#include "runtime/driver.h"
#include "runtime/errors.h"
#include "runtime/library.h"
#include "runtime/parallel.h"

namespace rocmforge {

namespace {

#if defined(__x86_64__)
constexpr char kArch[] = "x86_64";
#elif defined(__aarch64__)
constexpr char kArch[] = "aarch64";
#else
constexpr char kArch[] = "cpu";
#endif

constexpr int kKernelReported = -1;  // the code in a DriverError for what a kernel itself found wrong

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.starts_with("model name")) return line.substr(std::min(line.find(": "), line.size() - 2) + 2);
  }
  return std::string(kArch) + " CPU";
}

class HostModule : public Module {
 public:
  explicit HostModule(const std::string& path) : library_(path) {}

  Function function(const std::string& kernel) override {
    const auto* entry = static_cast<const HostKernel*>(library_.require(kernel.c_str()));
    return {const_cast<HostKernel*>(entry), entry->config};
  }

 private:
  Library library_;
};

struct HostLaunch {
  const HostKernel* entry;
  const std::string& kernel;
  const int32_t* grid;
  const void* args;
};

void run_one(void* context, int64_t index) {
  const auto& launch = *static_cast<const HostLaunch*>(context);
  const int64_t plane = int64_t{launch.grid[0]} * launch.grid[1];
  const int32_t block[3] = {static_cast<int32_t>(index % launch.grid[0]),
                            static_cast<int32_t>(index % plane / launch.grid[0]), static_cast<int32_t>(index / plane)};
  if (const char* problem = launch.entry->run_block(launch.args, block, launch.grid)) {
    throw DriverError("the kernel", kKernelReported, problem,
                      launch.kernel + ", block " + std::to_string(block[0]) + "," + std::to_string(block[1]) + "," +
                          std::to_string(block[2]));
  }
}

class HostDriver : public Driver {
 public:
  HostDriver() {
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) {
      throw DeviceError("rocmforge's CPU kernels need AVX2, FMA and F16C, which this processor lacks");
    }
#endif
    info_.name = processor_name();
    info_.arch = kArch;
    info_.compute_units = cpu_threads();
    info_.targets = {"cpu"};
  }

  bool synchronous() const override { return true; }

  std::unique_ptr<Module> load(const std::string& path) override { return std::make_unique<HostModule>(path); }

  void launch(const Function& function, const std::string& kernel, const int32_t grid[3], void*,
              const void* args) override {
    HostLaunch launch{static_cast<const HostKernel*>(function.handle), kernel, grid, args};
    parallel_for(int64_t{grid[0]} * grid[1] * grid[2], run_one, &launch);
  }
};

}  // namespace

std::unique_ptr<Driver> open_host() { return std::make_unique<HostDriver>(); }

}  // namespace rocmforge
