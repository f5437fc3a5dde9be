// SPDX-License-Identifier: Apache-2.0
#include "runtime/arch.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "runtime/errors.h"

namespace rocmforge {

namespace {

struct GenericTarget {
  std::string_view name;
  std::array<std::string_view, 8> covers;
};

// LLVM's generic processors (AMDGPU usage, "Generic processor versioning"), as far as the kernels exist for them.
constexpr GenericTarget kGenericTargets[] = {
    {"gfx9-4-generic", {"gfx942", "gfx950"}},
    {"gfx11-generic", {"gfx1100", "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153"}},
    {"gfx12-generic", {"gfx1200", "gfx1201"}},
};

bool is_processor(std::string_view name) {
  if (!name.starts_with("gfx") || name.size() < 6) return false;
  return std::all_of(name.begin() + 3, name.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}

}  // namespace

AmdArch parse_amd_arch(std::string_view name) {
  AmdArch arch;
  size_t colon = name.find(':');
  arch.processor = name.substr(0, colon);
  if (!is_processor(arch.processor)) {
    throw DeviceError("the HIP runtime names the device's architecture '" + std::string(name) +
                      "', which is not a gfx name");
  }
  while (colon != std::string_view::npos) {
    const size_t next = name.find(':', colon + 1);
    arch.features.emplace_back(name.substr(colon + 1, next == std::string_view::npos ? next : next - colon - 1));
    colon = next;
  }
  return arch;
}

std::vector<std::string> amd_targets(const std::string& processor) {
  std::vector<std::string> targets{processor};
  for (const GenericTarget& generic : kGenericTargets) {
    if (std::find(generic.covers.begin(), generic.covers.end(), processor) != generic.covers.end()) {
      targets.emplace_back(generic.name);
    }
  }
  return targets;
}

std::vector<std::string> cuda_targets(int major, int minor) {
  std::vector<std::string> targets;
  // Within one major version, code for a lower minor runs; across major versions none does.
  for (int m = minor; m >= 0; --m) targets.push_back("sm_" + std::to_string(major) + std::to_string(m));
  return targets;
}

}  // namespace rocmforge
