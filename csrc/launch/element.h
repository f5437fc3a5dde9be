// SPDX-License-Identifier: Apache-2.0
// Element types as Python numbers them (rocmforge_plugin/ops/checks.py), and as kernel names spell them.
#pragma once

#include <cstdint>

namespace rocmforge {

enum class Element : int { kBf16, kF16, kFloat };
inline constexpr int kElements = 3;
inline constexpr const char* kElementNames[kElements] = {"bf16", "f16", "float"};

constexpr int64_t element_size(Element element) { return element == Element::kFloat ? 4 : 2; }

}  // namespace rocmforge
