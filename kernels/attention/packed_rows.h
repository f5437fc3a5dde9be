// SPDX-License-Identifier: Apache-2.0
// A request's query rows as they are packed: token by token, the query heads of one KV head's group.
#pragma once

#include "../division/divide.h"
#include "args.h"

namespace rocmforge {

RF_DEVICE int group_of(const Heads& heads) { return static_cast<int>(heads.group.divisor); }

// A packed row's token, and its query head within the group.
RF_DEVICE Quotient split_row(const Heads& heads, int row) { return divide(row, heads.group); }

RF_DEVICE int64_t query_head(const Heads& heads, int kv_head, Quotient row) {
  return static_cast<int64_t>(kv_head) * heads.group.divisor + row.remainder;
}

}  // namespace rocmforge
