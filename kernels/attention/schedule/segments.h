// SPDX-License-Identifier: Apache-2.0
// What a workgroup's share of the plan is made of.
#pragma once

#include "../packed_rows.h"
#include "../problem/mask.h"
#include "schedule.h"

namespace rocmforge {

// A run of an item's tiles, and what the item is.
struct Segment {
  int head, request, first_row, rows;
  Context context;
  int first_tile, tiles;  // of the item
  int begin, end;         // of the segment, counted from first_tile
  int place;              // of its result among those that are partial; kWhole: it is the rows' own

  RF_DEVICE void item(const Heads& heads, const RowBlock& block, int kv_head) {
    head = kv_head;
    request = block.request;
    first_row = block.first_row;
    rows = block.query_len * group_of(heads);
    const int keys = block.keys();
    context = {block.keys_or_not, keys - block.query_len, block.token_start};
    first_tile = block.first_tile;
    tiles = block.tiles;
  }
  static constexpr int kWhole = -1;
  RF_DEVICE bool whole() const { return place == kWhole; }
};

// Keys that a row sees.
template <class G>
RF_DEVICE KeySpan row_keys(const AttentionArgs& args, const Segment& seg, int row) {
  return G::Masked::keys(args.mask, seg.context, split_row(args.heads, row).quotient);
}

// The segments of a workgroup's share, in order, round by round if there can be more than one.
template <int Wave, int MostRounds>
class Segments {
 public:
  // `block`: the share's first row block; there is no share, and so no segment, where it has no tiles.
  RF_DEVICE bool first(const AttentionArgs& args, const Share& share, const RowBlock& block, Segment& segment) {
    row_blocks_ = uniform<Wave>(share.row_blocks);
    next_head_ = uniform<Wave>(share.head);
    share_ = uniform<Wave>(share.number);
    start_round(share);
    return left_ > 0 && (take(args, uniform_block(block), segment) || next(args, segment));
  }

  RF_DEVICE bool next(const AttentionArgs& earlier, Segment& segment) {
    // Nothing of arguments and plan stays in registers from one segment to the next.
    const AttentionArgs& args = reload_args(earlier);
    const Plan plan{args.work.plan, args.work.workgroups};
    for (;;) {
      if (left_ > 0) {
        if (++block_number_ == row_blocks_) {
          block_number_ = 0;
          ++head_;
          at_ = 0;
        }
      } else {
        if (MostRounds == 1 || next_head_ >= args.heads.kv_heads) return false;
        const Share share = plan.share(block_index(0));
        start_round(share);
        share_ += uniform<Wave>(share.shares);
      }
      if (take(args, uniform_block(plan.block(block_number_)), segment)) return true;
    }
  }

 private:
  RF_DEVICE void start_round(const Share& share) {
    left_ = uniform<Wave>(share.tiles);
    block_number_ = uniform<Wave>(share.block);
    at_ = uniform<Wave>(share.at);
    head_ = next_head_;
    next_head_ += uniform<Wave>(share.heads);
  }

  // What the share has of the block's tiles, the gap before them apart.
  RF_DEVICE bool take(const AttentionArgs& args, const RowBlock& block, Segment& segment) {
    const int count = min(left_, block.begin + block.tiles - at_);
    segment.item(args.heads, block, head_);
    segment.begin = max(at_ - block.begin, 0);
    segment.end = at_ + count - block.begin;
    segment.place = args.work.fixed_parts ? part_place(block_number_, head_, args.heads.kv_heads)
                    : segment.begin == 0 && segment.end == segment.tiles ? Segment::kWhole
                                                                         : share_place(share_, segment.begin == 0);
    at_ += count;
    left_ -= count;
    // An item without tiles is where it begins.
    return segment.end > segment.begin || (block.tiles == 0 && segment.end == 0);
  }

  RF_DEVICE static RowBlock uniform_block(const RowBlock& b) {
    return {uniform<Wave>(b.request),   uniform<Wave>(b.first_row),  uniform<Wave>(b.first_tile),
            uniform<Wave>(b.begin),     uniform<Wave>(b.tiles),      uniform<Wave>(b.token_start),
            uniform<Wave>(b.query_len), uniform<Wave>(b.keys_or_not)};
  }

  int share_ = 0;  // whose segments they are
  int block_number_ = 0, row_blocks_ = 0, head_ = 0, next_head_ = 0;
  int at_ = 0, left_ = 0;  // the place on the head's line; tiles of the share from there on
};

}  // namespace rocmforge
