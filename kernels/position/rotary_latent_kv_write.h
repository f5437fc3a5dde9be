// SPDX-License-Identifier: Apache-2.0
// What latent attention needs before it reads its cache, in one launch: rotary position embedding of the queries' and
// the key's parts that have one, in place, and the token's row, its latent and that part of its key, into the paged
// cache.
#pragma once

#include "../cache/paged_rows.h"
#include "../target/device.h"
#include "head_group.h"

namespace rocmforge {

template <class T, int N>
struct RotaryLatentKvWrite {
  using Args = RotaryLatentKvWriteArgs;
  static constexpr int kHeads = kWriteHeads;
  static_assert(kHeads >= 2);
  // Few but busy lanes: each has twice kHeads vectors in flight, and takes the registers for that.
  static constexpr unsigned kWavesPerUnit = 3;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 64, .blocks_per_unit = 8, .early = kEarlyLaunch};
  enum Kind { kQuery, kKey, kLatent };

  // One lane's place: which row of which tensor (of queries, a group of heads), and which of its items.
  struct Place {
    Kind kind;
    HeadGroup<T> group;
    int items;        // of a row
    int lane, lanes;  // of a row: the lane does the items lane, lane + lanes, ...
  };

  RF_DEVICE static Place find_place(const Args& args, int32_t token, int32_t lane) {
    const int query_lanes = args.query_groups << args.query_shift;
    const int key_lanes = 1 << args.key_shift;
    if (lane < query_lanes) {
      const int lanes = 1 << args.query_shift;
      T* const query = token_rows<T>(args.query, token);
      return {kQuery,
              head_group<T>(query, args.query.head_stride, query, args.query.head_stride, args.query_heads,
                            args.group_heads, lane >> args.query_shift),
              args.shape.rotary_items, lane & (lanes - 1), lanes};
    }
    const int row_lane = lane - query_lanes;
    if (row_lane < key_lanes) {
      T* const key = token_rows<T>(args.key, token);
      return {kKey, {key, key, 0, 0, 1}, args.shape.items, row_lane, key_lanes};
    }
    return {kLatent,
            {token_rows<T>(args.latent, token), static_cast<T*>(args.cache.data), 0, 0, 1},
            args.latent_items,
            row_lane - key_lanes,
            1 << args.latent_shift};
  }

  // The cache's row, if the token has a slot there. A key has two targets, as if it were two heads: itself and the
  // cache.
  RF_DEVICE static void add_target(const Args& args, int64_t slot, Place& place) {
    const bool writes = has_slot(args.cache, slot);
    const int64_t offset = slot_offset(args.cache, slot);
    if (place.kind == kLatent) {
      place.group.target += offset;
      place.group.heads = writes ? 1 : 0;
    } else if (place.kind == kKey) {
      place.group.target_stride = static_cast<T*>(args.cache.data) + offset + args.latent_dims - place.group.target;
      place.group.heads = writes ? 2 : 1;
    }
  }

  RF_DEVICE static Item<N> find_item(const Args& args, const Place& place, int index) {
    if (place.kind == kLatent) return plain_item<N>(0, args.latent_dims, place.items, index);
    return row_item<N>(args.shape, index);
  }

  RF_DEVICE static void finish(const Args& args, const Place& place, const TokenRow& row, const Item<N>& item,
                               const GroupBits<T, N, kHeads>& bits) {
    if (item.part < 0) {
      store_group(place.group, item, bits, true, [](ItemFloats<N>&, int) {});
      return;
    }
    const auto table = load_cos_sin<T, N, false>(args.table, row, 0, item.first);
    store_group(place.group, item, bits, false,
                [&](ItemFloats<N>& values, int) { rotate(values, table, args.shape.interleaved); });
  }

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = begin_lane<kConfig.threads>();
    if (index >= args.lanes) return;
    const Quotient token = divide(static_cast<int32_t>(index), args.token_lanes);
    const TokenRow row{token.quotient, args.table.positions[token.quotient]};
    const int64_t slot = find_slot(args.cache, token.quotient);
    Place place = find_place(args, token.quotient, token.remainder);
    const auto item = find_item(args, place, min(place.lane, place.items - 1));
    const auto bits = load_group<kHeads>(place.group, item);
    // The rows are on their way before the slot is waited for.
    schedule_fence();
    add_target(args, slot, place);
    if (place.lane < place.items) finish(args, place, row, item, bits);
    // A row longer than its lanes hold at once (a narrow access to many elements) is read on.
    for (int i = place.lane + place.lanes; i < place.items; i += place.lanes) {
      const auto later = find_item(args, place, i);
      finish(args, place, row, later, load_group<kHeads>(place.group, later));
    }
  }
};

}  // namespace rocmforge
