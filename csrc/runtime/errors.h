// SPDX-License-Identifier: Apache-2.0
// What can go wrong with a device, as opposed to arguments.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace rocmforge {

// A driver call failed. `kernel` is empty where no kernel was involved.
class DriverError : public std::runtime_error {
 public:
  DriverError(std::string call, int code, const std::string& text, std::string kernel)
      : std::runtime_error(call + " failed: " + text + " (error " + std::to_string(code) + ")" +
                           (kernel.empty() ? "" : " [" + kernel + "]")),
        call(std::move(call)),
        code(code),
        kernel(std::move(kernel)) {}

  const std::string call;
  const int code;
  const std::string kernel;
};

// This device cannot be used: no driver library, no code for it, or code that does not belong to this build.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace rocmforge
