// SPDX-License-Identifier: Apache-2.0
// One unit per element type and head size (-DRF_TYPE, -DRF_HEAD); with -DRF_CORE, of that core for the CPU's tests.
#include "../index/instantiate.h"
#include "attention.h"
#include "combine.h"
#include "tuning.h"

#define RF_ATTENTION(name, ...) RF_NAMED_KERNEL(RF_PASTE(RF_PASTE(name, RF_TYPE), RF_SUFFIX), __VA_ARGS__)

namespace rocmforge {

using Core = NativeMma<RF_TYPE>;
using Tuned = Tuning<RF_CORE>;

#if !defined(RF_WIDE)
template <int QueryTiles>
using Decode = Attention<typename DecodeCore<RF_CORE, QueryTiles, RF_HEAD>::template Type<RF_TYPE>, RF_HEAD,
                         Shape<Tuned::decode(QueryTiles, RF_HEAD)>>;

RF_ATTENTION(attention_decode1, Decode<1>)
RF_ATTENTION(attention_decode2, Decode<2>)
RF_ATTENTION(attention_decode4, Decode<4>)
#endif
using Prefill = Attention<Core, RF_HEAD, Shape<Tuned::prefill(RF_HEAD)>>;

RF_ATTENTION(attention_prefill, Prefill)
RF_ATTENTION(attention_combine, Combine<RF_TYPE, RF_HEAD>)

}  // namespace rocmforge
