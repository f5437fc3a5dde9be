// SPDX-License-Identifier: Apache-2.0
// The writes to the paged cache. One unit per type.
#include "../target/entry.h"
#include "kv_write.h"
#include "latent_kv_write.h"

namespace rocmforge {

// One kernel per width of the memory accesses; the host takes the widest that every pointer and stride allows.
#define RF_CACHE_KERNELS(width, n)                         \
  RF_ENTRY(kv_write_##width, RF_TYPE, KvWrite<RF_TYPE, n>) \
  RF_ENTRY(latent_kv_write_##width, RF_TYPE, LatentKvWrite<RF_TYPE, n>)

RF_CACHE_KERNELS(v16, 16 / sizeof(RF_TYPE))
RF_CACHE_KERNELS(v8, 8 / sizeof(RF_TYPE))
RF_CACHE_KERNELS(v1, 1)

}  // namespace rocmforge
