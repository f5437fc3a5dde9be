// SPDX-License-Identifier: Apache-2.0
#include "../index/instantiate.h"
#include "kv_write.h"

namespace rocmforge {

// One kernel per width of the memory accesses; the host takes the widest that every pointer and stride allows.
RF_INSTANTIATE(kv_write_v16, KvWrite<RF_TYPE, 16 / sizeof(RF_TYPE)>)
RF_INSTANTIATE(kv_write_v8, KvWrite<RF_TYPE, 8 / sizeof(RF_TYPE)>)
RF_INSTANTIATE(kv_write_v1, KvWrite<RF_TYPE, 1>)

}  // namespace rocmforge
