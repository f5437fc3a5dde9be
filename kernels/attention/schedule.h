// SPDX-License-Identifier: Apache-2.0
// How attention's work is dealt out. A row block is up to `block_rows` packed query rows (token-major, group heads per
// token) of one request; with one KV head it is an item: a run of key tiles. All items' tiles form one line,
//     head 0: block 0, block 1, ...; head 1: block 0, ...
// which is cut into equal shares, one per workgroup. So every workgroup does the same number of tiles whatever the
// lengths are, the grid never depends on them, and only an item that a cut falls into needs combining.
#pragma once

#include "../index/divide.h"
#include "../target/device.h"
#include "args.h"
#include "schedule_words.h"

namespace rocmforge {

struct RowBlock {
  int32_t request;
  int32_t first_row;   // within the request's packed rows
  int32_t first_tile;  // of the keys it sees; later than 0 only under a window
  int32_t prefix;      // tiles of all row blocks before this one, with kItemTiles for each
};

// What starting and ending an item costs, in tiles: on the line, an item is so many tiles longer, at its begin.
inline constexpr int kItemTiles = 8;

inline constexpr int kFewParts = 4;  // of which one group of lanes joins a row

// An item that cuts fall into: the last thing workgroup `workgroup` does, and the first that the next parts - 1 do.
struct Join {
  int32_t workgroup, parts, head, row_block;
};

// A plan in memory: a header, each workgroup's first row block, the joins, then the row blocks (one more as an end mark).
struct Plan {
  const int32_t* data;

  RF_DEVICE int row_blocks() const { return data[0]; }
  RF_DEVICE int tiles_per_head() const { return data[1]; }
  RF_DEVICE int workgroups() const { return data[2]; }  // in use: at most one per tile
  RF_DEVICE int joins() const { return data[4]; }
  RF_DEVICE bool many_parts() const { return data[6] != 0; }  // some join has more than kFewParts
  RF_DEVICE Join join(int i) const {
    const Vec<int32_t, 4> words = load_vec<int32_t, 4>(data + data[5] + kJoinWords * i);
    return {words[0], words[1], words[2], words[3]};
  }
  RF_DEVICE int start(int workgroup) const { return data[kPlanHeader + workgroup]; }
  RF_DEVICE RowBlock block(int i) const {
    const Vec<int32_t, 4> words = load_vec<int32_t, 4>(data + data[3] + 4 * i);
    return {words[0], words[1], words[2], words[3]};
  }
  RF_DEVICE int prefix(int i) const { return data[data[3] + 4 * i + 3]; }
};

// First tile of a workgroup's share of `tiles`; share w is [cut(w), cut(w + 1)).
RF_DEVICE constexpr int64_t cut(int64_t tiles, int workgroups, int workgroup) { return tiles * workgroup / workgroups; }

// Positions of the keys that a run of a request's tokens sees, both ends included.
struct KeySpan {
  int first, last;
};

RF_DEVICE constexpr KeySpan key_span(int first_token, int last_token, int query_len, int seq_len, int window) {
  const int before = seq_len - query_len;  // keys that precede the first query token
  const int first = window > 0 ? max(0, before + first_token - window + 1) : 0;
  return {first, before + last_token};
}

}  // namespace rocmforge
