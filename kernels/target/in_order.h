// SPDX-License-Identifier: Apache-2.0
// For targets whose launches run strictly one after another: no early launch (device.h). Included by the target's
// header.
#pragma once

namespace rocmforge {

inline constexpr bool kEarlyLaunch = false;
RF_DEVICE void let_next_start() {}
RF_DEVICE void wait_for_previous() {}
RF_DEVICE void publish_writes() {}
RF_DEVICE void fetch_to_l2(const void*, int) {}
RF_DEVICE int32_t load_unsettled(const int32_t* global) { return *global; }

}  // namespace rocmforge
