// SPDX-License-Identifier: Apache-2.0
// Attention for a few rows: query tokens times query heads per KV head. Units as of prefill.hip.
#include "../target/entry.h"
#include "attention.h"
#include "tuning/native.h"

namespace rocmforge {

using Served = RF_PROBLEM;
template <int QueryTiles>
using Decode = Attention<typename DecodeCore<RF_CORE, Served, QueryTiles>::Type, Served,
                         Tuning<RF_CORE>::decode<Served, QueryTiles>()>;

RF_ENTRY(attention_decode1, RF_SUFFIX, Decode<1>)
RF_ENTRY(attention_decode2, RF_SUFFIX, Decode<2>)
RF_ENTRY(attention_decode4, RF_SUFFIX, Decode<4>)

}  // namespace rocmforge
