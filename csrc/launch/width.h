// SPDX-License-Identifier: Apache-2.0
// How wide a kernel may access memory: the widest vector to which every address it touches is aligned.
#pragma once

#include <cstdint>

#include "launch/element.h"

namespace rocmforge {

enum class Width : int { k16, k8, kElement };
inline constexpr int kWidths = 3;
inline constexpr const char* kWidthNames[kWidths] = {"v16", "v8", "v1"};

constexpr const char* name_of(Width width) { return kWidthNames[static_cast<int>(width)]; }

class Alignment {
 public:
  explicit Alignment(Element element) : size_(element_size(element)) {}

  Alignment& address(uintptr_t pointer) {
    bits_ |= static_cast<uint64_t>(pointer);
    return *this;
  }
  // A distance in elements between addresses, or a number of elements that vectors must divide.
  Alignment& elements(int64_t count) { return bytes(count * size_); }
  Alignment& bytes(int64_t count) {
    bits_ |= static_cast<uint64_t>(count);
    return *this;
  }

  Width widest() const {
    if (bits_ % 16 == 0) return Width::k16;
    if (bits_ % 8 == 0) return Width::k8;
    return Width::kElement;
  }

 private:
  uint64_t bits_ = 0;
  int64_t size_;
};

constexpr int vector_elements(Element element, Width width) {
  if (width == Width::kElement) return 1;
  return static_cast<int>((width == Width::k16 ? 16 : 8) / element_size(element));
}

}  // namespace rocmforge
