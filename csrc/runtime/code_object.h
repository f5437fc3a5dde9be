// SPDX-License-Identifier: Apache-2.0
// Reads constants out of a code object's file. Asking the driver for them would be a copy from the device, which is
// slow and not allowed while a graph is captured.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rocmforge {

class CodeObject {
 public:
  explicit CodeObject(const std::string& path);  // throws DeviceError if it is not a 64-bit ELF file

  // Copies the initial value of the object `symbol`; throws DeviceError if it is not there or is not `size` long.
  void read_symbol(std::string_view symbol, void* out, size_t size) const;

  const void* image() const { return bytes_.data(); }
  const std::string& path() const { return path_; }

 private:
  template <class T>
  T at(uint64_t offset) const;
  [[noreturn]] void fail(const std::string& what) const;

  std::string path_;
  std::string bytes_;
};

}  // namespace rocmforge
