// SPDX-License-Identifier: Apache-2.0
// Element types, and how kernels' names spell them, as rocmforge_plugin/served.py does.
#pragma once

#include <cstdint>

namespace rocmforge {

enum class Element : int { kBf16, kF16, kFloat };
inline constexpr int kElements = 3;
inline constexpr const char* kElementNames[kElements] = {"bf16", "f16", "float"};

constexpr const char* name_of(Element element) { return kElementNames[static_cast<int>(element)]; }
constexpr int64_t element_size(Element element) { return element == Element::kFloat ? 4 : 2; }

}  // namespace rocmforge
