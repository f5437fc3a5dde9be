// SPDX-License-Identifier: Apache-2.0
// The handlers, by file.
#pragma once

#include "handler.h"

namespace amdgpu {

Handlers vector_float();      // 32-bit floats, and conversions from and to them
Handlers vector_half();       // 16-bit floats and integers
Handlers vector_integer();    // 32-bit integers, carries
Handlers vector_wide();       // 64-bit integers and floats
Handlers vector_compare();    // comparisons and selection
Handlers vector_packed();     // two values an instruction, dot products, mixed precision
Handlers vector_dot();        // dot products within a lane
Handlers transcendentals();   // exp, log, rcp, rsq, sqrt, sin, cos
Handlers vector_division();   // the steps of a division
Handlers scalar_integer();
Handlers scalar_float();
Handlers control();           // branches, waits, barriers, execution masks
Handlers cross_lane();        // readlane, permutations, DPP
Handlers global_memory();     // global and scalar loads, stores
Handlers buffer_memory();     // buffer loads and stores
Handlers shared_memory();     // LDS
Handlers matrix();            // MFMA and WMMA

}  // namespace amdgpu
