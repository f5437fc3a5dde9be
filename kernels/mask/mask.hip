// SPDX-License-Identifier: Apache-2.0
// The causal mask on a matrix of scores, by width of memory accesses (v1: strided columns). One unit per type.
#include "../target/entry.h"
#include "causal_mask.h"

namespace rocmforge {

RF_ENTRY(causal_mask_v16, RF_TYPE, CausalMask<RF_TYPE, 16 / sizeof(RF_TYPE)>)
RF_ENTRY(causal_mask_v1, RF_TYPE, CausalMask<RF_TYPE, 1>)

}  // namespace rocmforge
