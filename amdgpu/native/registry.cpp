// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include "tables.h"

namespace amdgpu {

const std::vector<Handler>& handlers() {
  static const std::vector<Handler> all = [] {
    std::vector<Handler> found;
    for (const Handlers table :
         {vector_float(), vector_half(), vector_integer(), vector_wide(), vector_compare(), vector_packed(),
          vector_dot(), transcendentals(), vector_division(), scalar_integer(), scalar_float(), control(), cross_lane(),
          global_memory(), buffer_memory(), shared_memory(), matrix()}) {
      found.insert(found.end(), table.begin(), table.end());
    }
    return found;
  }();
  return all;
}

}  // namespace amdgpu
