// SPDX-License-Identifier: Apache-2.0
// Attention for prompts. One unit per problem: -DRF_PROBLEM is its type, -DRF_SUFFIX how its kernels' names end.
#include "../target/entry.h"
#include "attention.h"
#include "tuning/native.h"

namespace rocmforge {

using Served = RF_PROBLEM;
using Prefill = Attention<typename PrefillCore<RF_CORE, Served>::Type, Served, Tuning<RF_CORE>::prefill<Served>()>;

RF_ENTRY(attention_prefill, RF_SUFFIX, Prefill)

}  // namespace rocmforge
