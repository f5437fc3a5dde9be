// SPDX-License-Identifier: Apache-2.0
#include "runtime/kernel.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "runtime/errors.h"

namespace rocmforge {

namespace {

constexpr char kIndexFile[] = "kernels.txt";

struct Registry {
  std::mutex mutex;
  std::vector<Device*> devices;
};

Registry& registry() {
  static Registry& all = *new Registry;  // never destroyed: devices that Python frees late still find it
  return all;
}

std::unique_ptr<Driver> open_driver(const std::string& kind, int ordinal, const std::string& library) {
  if (kind == "hip") return open_hip(ordinal, library);
  if (kind == "cuda") return open_cuda(ordinal, library);
  if (kind == "cpu") return open_host();
  throw DeviceError("unknown kind of device '" + kind + "': hip, cuda or cpu");
}

std::string join(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out += (out.empty() ? "" : ", ") + name;
  return out;
}

std::vector<std::string> built_targets(const std::string& kernels_dir) {
  std::vector<std::string> found;
  std::error_code none;  // a folder that is not there has no targets
  for (const auto& entry : std::filesystem::directory_iterator(kernels_dir, none)) {
    if (std::filesystem::exists(entry.path() / kIndexFile)) found.push_back(entry.path().filename());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

Device::Device(const std::string& kind, int ordinal, const std::string& kernels_dir, const std::string& library)
    : kind_(kind), driver_(open_driver(kind, ordinal, library)) {
  choose_target(kernels_dir);
  read_index();
  std::lock_guard lock(registry().mutex);
  registry().devices.push_back(this);
}

Device::~Device() {
  std::lock_guard lock(registry().mutex);
  std::erase(registry().devices, this);
}

void Device::choose_target(const std::string& kernels_dir) {
  const std::vector<std::string> built = built_targets(kernels_dir);
  for (const std::string& target : info().targets) {
    if (std::find(built.begin(), built.end(), target) != built.end()) {
      target_ = target;
      folder_ = kernels_dir + "/" + target;
      return;
    }
  }
  throw DeviceError(
      "rocmforge has no kernels for " + info().name + " (" + info().arch + ") in " + kernels_dir +
      ". Built there: " + (built.empty() ? "none" : join(built)) + ". Code that would run: " + join(info().targets) +
      ". To build it, in rocmforge's source tree: ROCMFORGE_TARGETS=" + info().targets.front() + " pip install .");
}

void Device::read_index() {
  const std::string path = folder_ + "/" + kIndexFile;
  std::ifstream index(path);
  std::string key;
  std::string value;
  if (!(index >> key >> value) || key != "interface") throw DeviceError(path + " is damaged: build again");
  if (value != ROCMFORGE_INTERFACE) {
    throw DeviceError("the kernels in " + folder_ + " (" + value + ") were not built from the sources of this module " +
                      "(" ROCMFORGE_INTERFACE "): build both together with python -m rocmforge_build or pip install .");
  }
  while (index >> key >> value) files_[key] = value;
}

Kernel& Device::kernel(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (const auto known = kernels_.find(name); known != kernels_.end()) return *known->second;
  const auto file = files_.find(name);
  if (file == files_.end()) {
    throw DeviceError("kernel " + name + " is not built for " + target_ + ": " + folder_ + "/" + kIndexFile +
                      " lists what is");
  }
  std::unique_ptr<Module>& module = modules_[file->second];
  if (!module) module = driver_->load(folder_ + "/" + file->second);
  const Function function = module->function(name);
  if (function.config.abi != kLaunchAbi) {
    throw DeviceError("kernel " + name + " in " + folder_ + " has launch ABI " + std::to_string(function.config.abi) +
                      ", this module " + std::to_string(kLaunchAbi) + ": build again");
  }
  return *kernels_.emplace(name, std::make_unique<Kernel>(*driver_, name, function)).first->second;
}

std::vector<std::string> Device::kernel_names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : files_) names.push_back(name);
  return names;
}

void Device::add_launches(std::map<std::string, uint64_t>& totals) const {
  std::lock_guard lock(mutex_);
  for (const auto& [name, kernel] : kernels_) {
    if (const uint64_t count = kernel->launches()) totals[name] += count;
  }
}

void Device::reset_launches() {
  std::lock_guard lock(mutex_);
  for (const auto& [name, kernel] : kernels_) kernel->reset_launches();
}

std::map<std::string, uint64_t> launch_counts() {
  std::map<std::string, uint64_t> totals;
  std::lock_guard lock(registry().mutex);
  for (const Device* device : registry().devices) device->add_launches(totals);
  return totals;
}

void reset_launch_counts() {
  std::lock_guard lock(registry().mutex);
  for (Device* device : registry().devices) device->reset_launches();
}

}  // namespace rocmforge
