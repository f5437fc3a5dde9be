// SPDX-License-Identifier: Apache-2.0
// A code object in memory as a loader would place it, so that kernels find their constants beside their code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace amdgpu {

class Image {
 public:
  // Throws std::runtime_error for what is not a linked 64-bit ELF file of AMD GPUs.
  Image(const uint8_t* file, size_t size);
  ~Image();
  Image(const Image&) = delete;
  Image& operator=(const Image&) = delete;

  // Where the virtual address 0 of the file lies.
  uint64_t base() const { return base_; }

  // Bytes of the ELF file at an address, whose section headers are its end.
  static size_t size_of(const uint8_t* file);

 private:
  void* memory_ = nullptr;
  size_t bytes_ = 0;
  uint64_t base_ = 0;
};

}  // namespace amdgpu
