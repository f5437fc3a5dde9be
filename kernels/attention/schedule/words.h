// SPDX-License-Identifier: Apache-2.0
// Where things lie in a plan (schedule.h), in 32-bit words: for the host too, which allocates it.
#pragma once

namespace rocmforge {

inline constexpr int kPlanHeader = 8;
inline constexpr int kRecordWords = 8;
inline constexpr int kMostRounds = 4;  // of heads, that a plan can have

// After the header: each workgroup's share; its first row block; the joins, of which a round has fewer than workgroups;
// the row blocks. Behind these lie the joins of fixed parts, at most one for each request. Records are aligned for
// 16-byte loads.
constexpr int plan_shares_at() { return kPlanHeader; }
constexpr int plan_first_blocks_at(int workgroups) { return plan_shares_at() + kRecordWords * workgroups; }
constexpr int plan_joins_at(int workgroups) { return plan_first_blocks_at(workgroups) + kRecordWords * workgroups; }
constexpr int plan_blocks_at(int workgroups) {
  return plan_joins_at(workgroups) + kRecordWords * workgroups * kMostRounds;
}
constexpr int plan_size(int workgroups, int row_blocks) {
  return plan_blocks_at(workgroups) + kRecordWords * row_blocks;
}

}  // namespace rocmforge
