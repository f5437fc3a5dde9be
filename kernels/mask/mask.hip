// SPDX-License-Identifier: Apache-2.0
#include "../index/instantiate.h"
#include "causal_mask.h"

namespace rocmforge {

RF_INSTANTIATE(causal_mask_v16, CausalMask<RF_TYPE, 16 / sizeof(RF_TYPE)>)
RF_INSTANTIATE(causal_mask_v1, CausalMask<RF_TYPE, 1>)

}  // namespace rocmforge
