// SPDX-License-Identifier: Apache-2.0
// All handlers; an instruction names one by its place.
#pragma once

#include <vector>

#include "handler.h"

namespace amdgpu {

const std::vector<Handler>& handlers();

template <int Lanes>
Run<Lanes> run_of(const Handler& handler) {
  if constexpr (Lanes == 64) return handler.run64;
  else return handler.run32;
}

}  // namespace amdgpu
