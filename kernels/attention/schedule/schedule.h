// SPDX-License-Identifier: Apache-2.0
// How attention's work is dealt out. A row block is up to `block_rows` packed query rows (token-major, group heads per
// token) of one request; with one KV head it is an item: a run of key tiles. All items' tiles form one line,
//     head 0: block 0, block 1, ...; head 1: block 0, ...
// which is cut into equal shares, one per workgroup. So every workgroup does the same number of tiles whatever the
// lengths are, the grid never depends on them, and only an item that a cut falls into needs combining. An item that
// begins within a share costs that workgroup more than its tiles, so the line has a gap before it, which counts as
// tiles (plan.h). An item whose rows see no key has no tiles: only its result is written. Long prompts are done in
// rounds of some of the heads, with a line each: else the workgroups, all over the line at any time, would read the
// keys of all heads at once, which caches cannot hold.
// So what a request's results are, to the bit, depends on the batch. Where it must not, items are cut after their own
// length alone, each part is a row block of the line, cuts are moved to where these begin, and all parts are joined in
// their order.
#pragma once

#include "../../division/divide.h"
#include "../../target/device.h"
#include "../args.h"
#include "words.h"

namespace rocmforge {

struct RowBlock {
  int32_t request;
  int32_t first_row;  // within the request's packed rows
  int32_t first_tile;  // of the keys it sees; later than 0 only under a window
  int32_t begin;  // where its tiles begin on a head's line
  int32_t tiles;
  int32_t token_start, query_len;  // of the request
  int32_t keys_or_not;             // its keys; ~ of them where it is not causal

  RF_DEVICE int keys() const { return keys_or_not >= 0 ? keys_or_not : ~keys_or_not; }
};

// A workgroup's share is at least so many tiles: fewer cost more to join than they save (H200, one request of 8k keys:
// 14.9, 13.1, 13.7 and 18.3 us with 1, 2, 4 and 8).
inline constexpr int kLeastShare = 2;

inline constexpr int kFewParts = 4, kManyParts = 72;  // at most, at least: how an item is joined (combine.h)

// What a workgroup takes of the line.
struct Share {
  int32_t tiles;  // in every round; 0: nothing
  int32_t head, block, at;  // where it begins: the first round's KV head, the row block, the place on the head's line
  int32_t number;  // of the share, in the line's order
  int32_t row_blocks;  // of a head
  int32_t heads, shares;  // of a round
};

// An item in parts, and where their results are among all that are partial.
struct Join {
  int32_t first, parts, head;
  int32_t first_row, rows, token_start;  // the row block's first row; the request's rows and first token
  int32_t unused[2];

  // Of a part. `heads`: PlanHeader::join_heads.
  RF_DEVICE int place(int part, int heads) const {
    if (heads > 0) return first + part * heads;
    return part == 0 ? first : first - 1 + 2 * part;
  }
};

// Where shares are equal, each has a place for what it ends an item with that it did not begin and one for what it
// begins and does not end; a round's shares are counted on from those of the round before. Parts of fixed lengths have
// a place for each row block and head.
RF_DEVICE constexpr int share_place(int share, bool begins) { return 2 * share + (begins ? 1 : 0); }
RF_DEVICE constexpr int part_place(int row_block, int head, int heads) { return row_block * heads + head; }

// What a plan begins with.
struct PlanHeader {
  int32_t joins;
  int32_t beyond_few, reaches_many;  // whether some join has more than kFewParts, and whether one has kManyParts
  int32_t joins_at;  // where they are listed
  int32_t join_heads;  // 0, or: a join stands for those of so many heads, which `joins` counts
  int32_t unused[3];
};

// A plan in memory, for a grid of `grid` workgroups. All that a workgroup needs to begin with lies at places it knows.
// It is read ahead of waits for the launch ahead (publish_writes in plan.h).
struct Plan {
  const int32_t* data;
  int grid;

  RF_DEVICE PlanHeader header() const { return record<PlanHeader>(0, 0); }
  RF_DEVICE Share share(int workgroup) const { return record<Share>(plan_shares_at(), workgroup); }
  RF_DEVICE RowBlock first_block(int workgroup) const {
    return record<RowBlock>(plan_first_blocks_at(grid), workgroup);
  }
  RF_DEVICE RowBlock block(int i) const { return record<RowBlock>(plan_blocks_at(grid), i); }
  RF_DEVICE Join join(const PlanHeader& header, int i) const {
    if (header.join_heads == 0) return record<Join>(header.joins_at, i);
    Join join = record<Join>(header.joins_at, i / header.join_heads);
    join.head = i % header.join_heads;
    join.first += join.head;
    return join;
  }

 private:
  template <class Record>
  RF_DEVICE Record record(int at, int i) const {
    return __builtin_bit_cast(Record, load_vec<int32_t, kRecordWords>(data + at + int64_t{kRecordWords} * i));
  }
};

template <class Record>
RF_DEVICE void store_record(int32_t* records, int i, const Record& record) {
  store_vec(records + int64_t{kRecordWords} * i, __builtin_bit_cast(Vec<int32_t, kRecordWords>, record));
}

// Where share number `share` of `shares` equal ones begins on a line of `tiles`; it ends where the next begins.
RF_DEVICE constexpr int64_t cut(int64_t tiles, int shares, int share) { return tiles * share / shares; }

// The share that workgroup `block` of `used` takes. The hardware deals workgroups to its dies in turn, and each die has
// an L2 of its own: this gives a die consecutive shares, which mostly read the same keys.
RF_DEVICE constexpr int share_of(int block, int used) {
  const int die = block % kDies;
  return die * (used / kDies) + min(die, used % kDies) + block / kDies;
}

}  // namespace rocmforge
