// SPDX-License-Identifier: Apache-2.0
#include "../index/instantiate.h"
#include "rotary.h"
#include "rotary_kv_write.h"

namespace rocmforge {

// For each width of the memory accesses, in bytes (v1: one element); the host takes the widest that every pointer,
// stride and the pair layout allow. mrope: positions by sections of the pairs.
#define RF_POSITION_KERNELS(width, n)                                            \
  RF_INSTANTIATE(rotary_##width, Rotary<RF_TYPE, n, false>)                      \
  RF_INSTANTIATE(mrope_##width, Rotary<RF_TYPE, n, true>)                        \
  RF_INSTANTIATE(rotary_kv_write_##width, RotaryKvWrite<RF_TYPE, n, false, false>) \
  RF_INSTANTIATE(mrope_kv_write_##width, RotaryKvWrite<RF_TYPE, n, false, true>)   \
  RF_INSTANTIATE(norm_rotary_kv_write_##width, RotaryKvWrite<RF_TYPE, n, true, false>) \
  RF_INSTANTIATE(norm_mrope_kv_write_##width, RotaryKvWrite<RF_TYPE, n, true, true>)

RF_POSITION_KERNELS(v16, 16 / sizeof(RF_TYPE))
RF_POSITION_KERNELS(v8, 8 / sizeof(RF_TYPE))
RF_POSITION_KERNELS(v1, 1)

}  // namespace rocmforge
