// SPDX-License-Identifier: Apache-2.0
// Where things lie in a plan (schedule.h), in 32-bit words: for the host too, which allocates it.
#pragma once

namespace rocmforge {

inline constexpr int kPlanHeader = 8;
inline constexpr int kJoinWords = 4;

// After the header: each workgroup's first row block; the joins, of which a plan has fewer than workgroups; the row
// blocks. The last two are aligned for 16-byte loads.
constexpr int plan_joins_at(int workgroups) { return kPlanHeader + (workgroups + 3) / 4 * 4; }
constexpr int plan_blocks_at(int workgroups) { return plan_joins_at(workgroups) + kJoinWords * workgroups; }
constexpr int plan_size(int workgroups, int row_blocks) { return plan_blocks_at(workgroups) + 4 * (row_blocks + 1); }

}  // namespace rocmforge
