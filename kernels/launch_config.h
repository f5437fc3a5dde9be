// SPDX-License-Identifier: Apache-2.0
// What the host must know to launch a kernel. Every code object carries one `NAME_config` per kernel `NAME`, so the
// runtime reads launch shapes from the code it loads and keeps no table per architecture.
#pragma once

#include "target/types.h"

namespace rocmforge {

// Raised whenever an Args struct or this struct changes: a stale code object is refused at load.
inline constexpr int32_t kLaunchAbi = 9;

struct LaunchConfig {
  int32_t abi = kLaunchAbi;
  int32_t wave = 1;             // lanes that exchange data in lock step; 1: the kernel has no collectives
  int32_t threads = 256;        // per block
  int32_t shared_bytes = 0;     // dynamic shared memory to request at launch
  int32_t rows = 0;             // attention: packed query rows per block
  int32_t keys = 0;             // attention: keys per tile
  int32_t blocks_per_unit = 1;  // blocks that fit one compute unit at once, by design
  int32_t prefers_shared = 0;   // 1: what it reads passes through shared memory, little of it through the cache
  int32_t rounds = 1;           // attention: rounds of heads that a plan for it may have
  int32_t row_elements = 0;     // attention: of a key's row in the cache, its value's included
  int32_t early = 0;            // 1: may start before the launch ahead of it ends; waits for its results itself
};

}  // namespace rocmforge
