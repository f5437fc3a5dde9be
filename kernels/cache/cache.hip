// SPDX-License-Identifier: Apache-2.0
// The write of keys and values to the paged cache. One unit per type.
#include "../target/entry.h"
#include "kv_write.h"

namespace rocmforge {

// One kernel per width of the memory accesses; the host takes the widest that every pointer and stride allows.
RF_ENTRY(kv_write_v16, RF_TYPE, KvWrite<RF_TYPE, 16 / sizeof(RF_TYPE)>)
RF_ENTRY(kv_write_v8, RF_TYPE, KvWrite<RF_TYPE, 8 / sizeof(RF_TYPE)>)
RF_ENTRY(kv_write_v1, RF_TYPE, KvWrite<RF_TYPE, 1>)

}  // namespace rocmforge
