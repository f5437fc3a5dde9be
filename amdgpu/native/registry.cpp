// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include "tables.h"

namespace amdgpu {

const std::vector<Handler>& handlers() {
  static const std::vector<Handler> all = [] {
    std::vector<Handler> found;
    for (const Handlers table : {vector_float(), control()}) {
      found.insert(found.end(), table.begin(), table.end());
    }
    return found;
  }();
  return all;
}

}  // namespace amdgpu
