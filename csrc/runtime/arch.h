// SPDX-License-Identifier: Apache-2.0
// Which built code a device can run. Pure functions of the names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rocmforge {

// A device's gcnArchName, such as "gfx942:sramecc+:xnack-".
struct AmdArch {
  std::string processor;              // "gfx942"
  std::vector<std::string> features;  // "sramecc+", "xnack-"
};

AmdArch parse_amd_arch(std::string_view name);  // throws DeviceError if it is not one

// Names of targets whose code the device runs, best first: its own, then the generic target that covers it.
std::vector<std::string> amd_targets(const std::string& processor);
std::vector<std::string> cuda_targets(int major, int minor);

}  // namespace rocmforge
