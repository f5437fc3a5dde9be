// SPDX-License-Identifier: Apache-2.0
// Position embedding, alone and with the write to the paged cache. One unit per type.
#include "../target/entry.h"
#include "rotary.h"
#include "rotary_kv_write.h"
#include "rotary_latent_kv_write.h"

namespace rocmforge {

// For each width of the memory accesses, in bytes (v1: one element); the host takes the widest that every pointer,
// stride and the pair layout allow. mrope: positions by sections of the pairs.
#define RF_POSITION_KERNELS(width, n)                                                     \
  RF_ENTRY(rotary_##width, RF_TYPE, Rotary<RF_TYPE, n, false>)                            \
  RF_ENTRY(mrope_##width, RF_TYPE, Rotary<RF_TYPE, n, true>)                              \
  RF_ENTRY(rotary_kv_write_##width, RF_TYPE, RotaryKvWrite<RF_TYPE, n, false, false>)     \
  RF_ENTRY(mrope_kv_write_##width, RF_TYPE, RotaryKvWrite<RF_TYPE, n, false, true>)       \
  RF_ENTRY(norm_rotary_kv_write_##width, RF_TYPE, RotaryKvWrite<RF_TYPE, n, true, false>) \
  RF_ENTRY(norm_mrope_kv_write_##width, RF_TYPE, RotaryKvWrite<RF_TYPE, n, true, true>)   \
  RF_ENTRY(rotary_latent_kv_write_##width, RF_TYPE, RotaryLatentKvWrite<RF_TYPE, n>)

RF_POSITION_KERNELS(v16, 16 / sizeof(RF_TYPE))
RF_POSITION_KERNELS(v8, 8 / sizeof(RF_TYPE))
RF_POSITION_KERNELS(v1, 1)

}  // namespace rocmforge
