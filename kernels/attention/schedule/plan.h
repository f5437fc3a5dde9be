// SPDX-License-Identifier: Apache-2.0
// Makes the plans of schedule.h on the device, once per step: lengths never travel to the host. One block per class.
// For masks that are listed (problem/mask.h) the first of them lists what each token sees.
#pragma once

#include "../packed_rows.h"
#include "../problem/mask.h"
#include "schedule.h"

namespace rocmforge {

template <bool kLists>
struct MakePlan {
  using Args = PlanArgs;
  // The CPU target runs lanes one by one, so fewer of them scan the same list with less switching.
  static constexpr int kThreads = kHostTarget ? 16 : 256;
  struct Shared {
    int32_t sums[2][kThreads];
  };
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = kThreads, .shared_bytes = sizeof(Shared)};

  RF_DEVICE static void run(const Args& args) {
    const PlanClass& cls = args.classes[block_index(0)];
    int32_t* const blocks = cls.plan + plan_blocks_at(cls.workgroups);
    const Plan plan{cls.plan, cls.workgroups};
    const int row_blocks = list_row_blocks(args, cls, blocks);
    const bool fixed = cls.most_parts > 0;
    const int even = fixed ? 0 : even_shares(args, cls, plan, row_blocks);
    const int gap = even > 0 ? 0 : kItemGap;
    const int tiles = place_row_blocks(plan, blocks, row_blocks, gap);
    const Rounds rounds = even > 0 || fixed ? Rounds{1, args.heads.kv_heads} : rounds_of(args, cls, tiles);
    const int64_t all_tiles = static_cast<int64_t>(tiles) * rounds.heads;
    const int used = even > 0 ? even : most_shares(cls, all_tiles);
    PlanHeader* const header = reinterpret_cast<PlanHeader*>(cls.plan);
    const int joins_at =
        fixed ? plan_blocks_at(cls.workgroups) + kRecordWords * cls.capacity : plan_joins_at(cls.workgroups);
    if (thread_index() == 0) *header = PlanHeader{.joins_at = joins_at, .join_heads = fixed ? args.heads.kv_heads : 0};
    // Where a share begins on the rounds' line.
    const auto begin_of = [&](int number) {
      const int64_t at = cut(all_tiles, used, number);
      return fixed ? next_row_block(plan, blocks, row_blocks, tiles, gap, at) : at;
    };
    for (int w = thread_index(); w < cls.workgroups; w += kThreads) {
      Share share{};
      if (w < used) {
        share.number = share_of(w, used);
        const int64_t begin = begin_of(share.number);
        share.tiles = static_cast<int32_t>(begin_of(share.number + 1) - begin);
        share.head = static_cast<int32_t>(begin / tiles);
        share.at = static_cast<int32_t>(begin % tiles);
        share.block = last_at_most(blocks + kBeginWord, kRecordWords, row_blocks, share.at + gap);
        share.row_blocks = row_blocks;
        share.heads = rounds.heads;
        share.shares = used;
        store_record(cls.plan + plan_first_blocks_at(cls.workgroups), w, plan.block(share.block));
      }
      store_record(cls.plan + plan_shares_at(), w, share);
    }
    if (fixed) list_fixed_joins(args, cls, cls.plan + joins_at, header);
    else list_joins(args, plan, tiles, used, rounds, cls.plan + joins_at, header);
    if constexpr (kLists) {
      if (block_index(0) == 0) list_spans(args);
    }
    publish_writes();
  }

 private:
  // The gap before an item, in tiles. H200, with 2, 4, 5 and 8: 2k tokens of prefill 156, 113, 110 and 116 us, 16k 4.9,
  // 4.6, 4.5 and 4.5 ms; decode of 128 requests of 256 to 2k keys 44, 45, - and 48 us.
  static constexpr int kItemGap = 5;

  RF_DEVICE static int most_shares(const PlanClass& cls, int64_t all_tiles) {
    return static_cast<int>(min<int64_t>(cls.workgroups, (all_tiles + kLeastShare - 1) / kLeastShare));
  }

  // Keys of a workgroup's share of a round, at least: every share ends in an item that has to be joined. H200, 8 KV
  // heads, in 4 rounds: 16k tokens of prefill 4.90 -> 4.70 ms, 2k on 32k keys 7.0 -> 6.6; but 8 prompts of 2k, with 28k
  // keys a share, took 0.78 ms in 2 rounds as in one, and 0.83 in 4. The CPU target has rounds where tests are short.
  static constexpr int kRoundKeys = kHostTarget ? 256 : 32768;

  struct Rounds {
    int count, heads;  // a power of two, and of each
  };

  RF_DEVICE static Rounds rounds_of(const Args& args, const PlanClass& cls, int tiles) {
    const int64_t head_keys = static_cast<int64_t>(tiles) * cls.tile_keys;
    const int64_t least_keys = int64_t{kRoundKeys} * cls.workgroups;
    Rounds rounds{1, args.heads.kv_heads};
    while (2 * rounds.count <= cls.rounds && rounds.heads % 2 == 0 && head_keys * (rounds.heads / 2) >= least_keys)
      rounds = {2 * rounds.count, rounds.heads / 2};
    return rounds;
  }

  // Where all items are alike, so many shares that each is of one item only, unless that makes the largest larger; else
  // 0. Then no item needs a gap.
  RF_DEVICE static int even_shares(const Args& args, const PlanClass& cls, const Plan& plan, int row_blocks) {
    if (row_blocks == 0 || plan.block(0).tiles == 0) return 0;
    const int item_tiles = plan.block(0).tiles, items = row_blocks * args.heads.kv_heads;
    const int64_t all_tiles = static_cast<int64_t>(item_tiles + kItemGap) * items;
    const int most = most_shares(cls, all_tiles);
    if (items > most) return 0;
    int differ = 0;
    for (int i = thread_index(); i < row_blocks; i += kThreads) differ |= plan.block(i).tiles != item_tiles;
    int different;
    exclusive_scan(differ, different);
    const int parts = min(most / items, max(item_tiles / kLeastShare, 1));
    const bool larger = ceil_div(item_tiles, parts) > (all_tiles + most - 1) / most;
    return different > 0 || larger ? 0 : parts * items;
  }

  // Lists the items that a workgroup begins and later ones end, with how many they are, in the header too.
  RF_DEVICE static void list_joins(const Args& args, const Plan& plan, int tiles, int used, Rounds rounds,
                                   int32_t* joins, PlanHeader* header) {
    const int64_t all_tiles = static_cast<int64_t>(tiles) * rounds.heads;
    int listed = 0;
    barrier();
    for (int base = 0; base < used; base += kThreads) {
      const int next = base + thread_index();
      const int w = next < used ? share_of(next, used) - 1 : -1;
      Join join{};
      if (w >= 0) {
        const int64_t end = cut(all_tiles, used, w + 1);
        const int64_t head_begin = end / tiles * tiles;
        const RowBlock block = plan.first_block(next);  // which `end` falls into
        const int64_t item_begin = head_begin + block.begin, item_end = item_begin + block.tiles;
        if (end > item_begin && item_begin >= cut(all_tiles, used, w)) {
          // The first share that begins at the item's end or later.
          const int last = static_cast<int>((item_end * used + all_tiles - 1) / all_tiles);
          join = {.first = share_place(w, true),
                  .parts = last - w,
                  .head = static_cast<int32_t>(end / tiles),
                  .first_row = block.first_row,
                  .rows = block.query_len * group_of(args.heads),
                  .token_start = block.token_start};
        }
      }
      int total;
      const int at = listed + exclusive_scan(join.parts > 0, total);
      RF_NO_UNROLL  // with 34 KB of code instead of 32 a plan took 0.2 to 0.8 us longer, of 256 requests 6 us (H200)
      for (int round = 0; round < rounds.count && join.parts > 0; ++round) {
        store_record(joins, at + round * total, join);
        join.first += share_place(used, false);
        join.head += rounds.heads;
      }
      listed += rounds.count * total;
      if (join.parts > kFewParts) header->beyond_few = 1;
      if (join.parts >= kManyParts) header->reaches_many = 1;
    }
    if (thread_index() == 0) header->joins = listed;
  }

  // Writes every row block but where it begins.
  RF_DEVICE static int list_row_blocks(const Args& args, const PlanClass& cls, int32_t* blocks) {
    int listed = 0;
    for (int base = 0; base < args.requests; base += kThreads) {
      const int request = base + thread_index();
      const int count = request < args.requests ? row_blocks_of(args, cls, request) : 0;
      int total;
      const int before = listed + exclusive_scan(count, total);
      if (request < args.requests) cls.first_block[request] = before;
      listed += total;
    }
    barrier();
    listed = min(listed, cls.capacity);
    for (int i = thread_index(); i < listed; i += kThreads) {
      const int request = last_at_most(cls.first_block, 1, args.requests, i);
      const int token_start = args.query_start[request], query_len = args.query_start[request + 1] - token_start;
      const Context context = context_of(args, request);
      const int number = i - cls.first_block[request];
      const bool in_parts = cls.most_parts > 1;  // then a request has one row block
      const int first_row = in_parts ? 0 : number * cls.block_rows;
      const int last_row = min(first_row + cls.block_rows, query_len * group_of(args.heads)) - 1;
      const int first_key = seen(args, request, context, split_row(args.heads, first_row).quotient).first;
      const int last_key = seen(args, request, context, split_row(args.heads, last_row).quotient).last;
      int first_tile = first_key / cls.tile_keys;
      int tiles = ceil_div(last_key + 1, cls.tile_keys) - first_tile;
      if (in_parts) {
        const int length = part_tiles(cls, tiles);
        first_tile += number * length;
        tiles = min(tiles - number * length, length);
      }
      store_record(blocks, i,
                   RowBlock{.request = request,
                            .first_row = first_row,
                            .first_tile = first_tile,
                            .begin = 0,
                            .tiles = tiles,
                            .token_start = token_start,
                            .query_len = query_len,
                            .keys_or_not = context.keys_or_not});
    }
    barrier();
    return listed;
  }

  // Tiles of a part of an item of so many.
  RF_DEVICE static int part_tiles(const PlanClass& cls, int tiles) {
    return max(ceil_div(tiles, cls.most_parts), cls.least_part);
  }

  RF_DEVICE static int row_blocks_of(const Args& args, const PlanClass& cls, int request) {
    const int blocks = ceil_div(class_rows(args, cls, request), cls.block_rows);
    if (cls.most_parts <= 1 || blocks == 0) return blocks;
    const Context context = context_of(args, request);
    const int tokens = args.query_start[request + 1] - context.first_token;
    const int first_tile = seen(args, request, context, 0).first / cls.tile_keys;
    const int tiles = ceil_div(seen(args, request, context, tokens - 1).last + 1, cls.tile_keys) - first_tile;
    return max(ceil_div(tiles, part_tiles(cls, tiles)), 1);
  }

  // The place on the rounds' line where the first row block begins, its gap included, that does so at `at` or later.
  RF_DEVICE static int64_t next_row_block(const Plan& plan, const int32_t* blocks, int row_blocks, int tiles, int gap,
                                          int64_t at) {
    const int64_t head = at / max(tiles, 1);
    const int place = static_cast<int>(at - head * tiles);
    const RowBlock block = plan.block(last_at_most(blocks + kBeginWord, kRecordWords, row_blocks, place + gap));
    return head * tiles + (block.begin - gap == place ? place : block.begin + block.tiles);
  }

  // Of requests in several parts.
  RF_DEVICE static void list_fixed_joins(const Args& args, const PlanClass& cls, int32_t* joins, PlanHeader* header) {
    int listed = 0;
    barrier();
    for (int base = 0; base < args.requests; base += kThreads) {
      const int request = base + thread_index();
      const int parts = cls.most_parts > 1 && request < args.requests ? row_blocks_of(args, cls, request) : 0;
      int total;
      const int at = listed + exclusive_scan(parts > 1, total);
      if (parts > 1) {
        const int heads = args.heads.kv_heads, token_start = args.query_start[request];
        const int rows = (args.query_start[request + 1] - token_start) * group_of(args.heads);
        store_record(joins, at,
                     Join{.first = part_place(cls.first_block[request], 0, heads),
                          .parts = parts,
                          .head = 0,
                          .first_row = 0,
                          .rows = rows,
                          .token_start = token_start});
      }
      listed += total;
      if (parts > kFewParts) header->beyond_few = 1;
      if (parts >= kManyParts) header->reaches_many = 1;
    }
    if (thread_index() == 0) header->joins = listed * args.heads.kv_heads;
  }

  // Packed rows of a request if it is of this class, else 0. Where a token's own key is among its request's, one
  // without keys is padding.
  RF_DEVICE static int class_rows(const Args& args, const PlanClass& cls, int request) {
    const int rows = (args.query_start[request + 1] - args.query_start[request]) * group_of(args.heads);
    const bool padding = is_causal(args, request) && args.seq_lens[request] <= 0;
    return rows >= cls.min_rows && rows <= cls.max_rows && !padding ? rows : 0;
  }

  RF_DEVICE static bool is_causal(const Args& args, int request) {
    int of_all = args.causal;
    materialize(of_all);  // else clang loads from one place or the other through a pointer to any memory (AMD)
    return (args.causal_requests ? args.causal_requests[request] : of_all) != 0;
  }

  RF_DEVICE static Context context_of(const Args& args, int request) {
    const int first_token = args.query_start[request], keys = args.seq_lens[request];
    return Context::of(keys, args.query_start[request + 1] - first_token, is_causal(args, request), first_token);
  }

  // Keys that a token of a request sees.
  RF_DEVICE static KeySpan seen(const Args& args, int request, const Context& context, int token) {
    if constexpr (kLists) return keys_in_ranges(args.mask, args.ranges, request, context, token);
    else return Windowed::keys(args.mask, context, token);
  }

  RF_DEVICE static void list_spans(const Args& args) {
    for (int i = args.query_start[0] + thread_index(); i < args.query_start[args.requests]; i += kThreads) {
      const int request = last_at_most(args.query_start, 1, args.requests, i);
      const Context context = context_of(args, request);
      const KeySpan keys = seen(args, request, context, i - context.first_token);
      store_vec(args.spans + 2 * int64_t{i}, Vec<int32_t, 2>{{keys.first, keys.last}});
    }
  }

  static constexpr int kBeginWord = __builtin_offsetof(RowBlock, begin) / sizeof(int32_t);

  // Writes where the row blocks begin; returns the length of a head's line.
  RF_DEVICE static int place_row_blocks(const Plan& plan, int32_t* blocks, int row_blocks, int gap) {
    int length = 0;
    for (int base = 0; base < row_blocks; base += kThreads) {
      const int i = base + thread_index();
      int total;
      const int before = length + exclusive_scan(i < row_blocks ? gap + plan.block(i).tiles : 0, total);
      if (i < row_blocks) blocks[kRecordWords * i + kBeginWord] = before + gap;
      length += total;
    }
    barrier();
    return length;
  }

  // Last i in [0, count) with list[i * stride] <= value, in a list that rises from at most `value`.
  RF_DEVICE static int last_at_most(const int32_t* list, int stride, int count, int value) {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (list[middle * stride] <= value) low = middle;
      else high = middle;
    }
    return low;
  }

  RF_DEVICE static int exclusive_scan(int value, int& total) {
    Shared& shared = shared_memory<Shared>();
    const int t = thread_index();
    int turn = 0;
    shared.sums[0][t] = value;
    barrier();
    for (int step = 1; step < kThreads; step *= 2, turn ^= 1) {
      shared.sums[turn ^ 1][t] = shared.sums[turn][t] + (t >= step ? shared.sums[turn][t - step] : 0);
      barrier();
    }
    const int inclusive = shared.sums[turn][t];
    total = shared.sums[turn][kThreads - 1];
    barrier();
    return inclusive - value;
  }
};

}  // namespace rocmforge
