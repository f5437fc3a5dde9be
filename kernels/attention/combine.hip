// SPDX-License-Identifier: Apache-2.0
// One unit per type of results and number of their dims (-DRF_TYPE, -DRF_DIMS): problems that agree in these share it.
#include "../target/entry.h"
#include "combine.h"

namespace rocmforge {

using Kernel = Combine<RF_TYPE, RF_DIMS>;

RF_ENTRY(attention_combine, RF_SUFFIX, Kernel)

}  // namespace rocmforge
