// SPDX-License-Identifier: Apache-2.0
// Kernels of one device: looked up by name once, launched many times, every launch checked and counted.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <vector>

#include "runtime/driver.h"

namespace rocmforge {

using Grid = std::array<int32_t, 3>;
inline constexpr size_t kMaxArgs = 512;
using Stream = uintptr_t;  // hipStream_t or CUstream as an integer, as torch hands it out; unused on the CPU

class Kernel {
 public:
  Kernel(Driver& driver, std::string name, const Function& function)
      : driver_(driver), name_(std::move(name)), function_(function) {}

  const LaunchConfig& config() const { return function_.config; }
  const std::string& name() const { return name_; }

  // An empty grid has no work: nothing is launched and nothing counted.
  template <class Args>
  void launch(const Grid& grid, Stream stream, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= kMaxArgs);
    launch_bytes(grid, stream, &args);
  }

  void launch_bytes(const Grid& grid, Stream stream, const void* args) {
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return;
    driver_.launch(function_, name_, grid.data(), reinterpret_cast<void*>(stream), args);
    launches_.fetch_add(1, std::memory_order_relaxed);
  }

  uint64_t launches() const { return launches_.load(std::memory_order_relaxed); }
  void reset_launches() { launches_.store(0, std::memory_order_relaxed); }

 private:
  Driver& driver_;
  std::string name_;
  Function function_;
  std::atomic<uint64_t> launches_{0};
};

class Device {
 public:
  // kind: "hip", "cuda" or "cpu". kernels_dir holds one folder per built target. Throws DeviceError if the device has
  // no driver or no code there, DriverError if a call fails.
  Device(const std::string& kind, int ordinal, const std::string& kernels_dir, const std::string& library = {});
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceInfo& info() const { return driver_->info(); }
  const std::string& kind() const { return kind_; }
  const std::string& target() const { return target_; }
  bool synchronous() const { return driver_->synchronous(); }
  bool capturing(Stream stream) const { return driver_->capturing(reinterpret_cast<void*>(stream)); }

  // Loads what is needed at the first call for a name. The reference holds as long as the device.
  Kernel& kernel(const std::string& name);
  bool has_kernel(const std::string& name) const { return files_.contains(name); }
  std::vector<std::string> kernel_names() const;

  void add_launches(std::map<std::string, uint64_t>& totals) const;
  void reset_launches();

 private:
  void choose_target(const std::string& kernels_dir);
  void read_index();

  std::string kind_;
  std::string folder_;
  std::string target_;
  std::map<std::string, std::string> files_;  // kernel name -> file in folder_
  std::unique_ptr<Driver> driver_;  // outlives what follows
  mutable std::mutex mutex_;
  std::map<std::string, std::unique_ptr<Module>> modules_;
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
};

// Totals over all devices of this process, by kernel name; kernels that never ran are not in it.
std::map<std::string, uint64_t> launch_counts();
void reset_launch_counts();

}  // namespace rocmforge
