// SPDX-License-Identifier: Apache-2.0
#include "../index/instantiate.h"
#include "rotary.h"
#include "rotary_kv_write.h"

namespace rocmforge {

// One kernel per width of the memory accesses, in bytes (v1: one element); the host takes the widest that every pointer,
// stride and the pair layout allow.
RF_INSTANTIATE(rotary_v16, Rotary<RF_TYPE, 16 / sizeof(RF_TYPE)>)
RF_INSTANTIATE(rotary_v8, Rotary<RF_TYPE, 8 / sizeof(RF_TYPE)>)
RF_INSTANTIATE(rotary_v1, Rotary<RF_TYPE, 1>)

RF_INSTANTIATE(rotary_kv_write_v16, RotaryKvWrite<RF_TYPE, 16 / sizeof(RF_TYPE), false>)
RF_INSTANTIATE(rotary_kv_write_v8, RotaryKvWrite<RF_TYPE, 8 / sizeof(RF_TYPE), false>)
RF_INSTANTIATE(rotary_kv_write_v1, RotaryKvWrite<RF_TYPE, 1, false>)

RF_INSTANTIATE(norm_rotary_kv_write_v16, RotaryKvWrite<RF_TYPE, 16 / sizeof(RF_TYPE), true>)
RF_INSTANTIATE(norm_rotary_kv_write_v8, RotaryKvWrite<RF_TYPE, 8 / sizeof(RF_TYPE), true>)
RF_INSTANTIATE(norm_rotary_kv_write_v1, RotaryKvWrite<RF_TYPE, 1, true>)

}  // namespace rocmforge
