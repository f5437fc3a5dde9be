// SPDX-License-Identifier: Apache-2.0
// Joins the partial results of items that the plan's cuts fell into. Block (w, y): workgroup w's last item, if it began
// there and went on in later workgroups; rows y, y + kRowBlocks, ... of it. Lanes take a few dims of a row each, and
// groups of lanes take different partials, since a long request at batch 1 is cut into more than a hundred.
#pragma once

#include "schedule.h"
#include "softmax.h"

namespace rocmforge {

template <class T, int HeadSize>
struct Combine {
  using Args = AttentionArgs;
  static constexpr int kRun = 4;  // dims a lane owns
  static constexpr int kRowLanes = HeadSize / kRun;
  static constexpr int kGroups = kHostTarget ? 1 : 256 / kRowLanes;
  static constexpr int kRowBlocks = 16;  // grid size in y: rows in flight per item
  struct Shared {
    Vec<float, kRun> out[kGroups][kRowLanes];
    SoftmaxState row[kGroups];
  };
  static constexpr LaunchConfig kConfig{
      .wave = 1, .threads = kGroups * kRowLanes, .shared_bytes = sizeof(Shared), .rows = kRowBlocks};

  RF_DEVICE static void run(const Args& args) {
    const Plan plan{args.plan};
    const int workgroup = block_index(0);
    const int used = plan.workgroups();
    if (workgroup + 1 >= used) return;
    const int per_head = plan.tiles_per_head();
    const int64_t tiles = static_cast<int64_t>(per_head) * args.kv_heads;
    const int64_t begin = cut(tiles, used, workgroup), end = cut(tiles, used, workgroup + 1);
    // The item that `end` falls into.
    const int head = static_cast<int>(end / per_head);
    const int at = static_cast<int>(end % per_head);
    const int i = plan.start(workgroup + 1);
    const RowBlock block = plan.block(i);
    const int64_t item_begin = static_cast<int64_t>(head) * per_head + block.prefix;
    const int64_t item_end = static_cast<int64_t>(head) * per_head + plan.prefix(i + 1);
    if (at == block.prefix || item_begin < begin) return;
    int parts = 1;
    while (cut(tiles, used, workgroup + parts) < item_end) ++parts;

    const int token_start = args.query_start[block.request];
    const int rows = (args.query_start[block.request + 1] - token_start) * static_cast<int>(args.group.divisor);
    const int stop = min(args.block_rows, rows - block.first_row);
    for (int row = block_index(1); row < stop; row += kRowBlocks) {
      const Quotient where = divide(block.first_row + row, args.group);
      const int64_t query_head = static_cast<int64_t>(head) * args.group.divisor + where.remainder;
      combine_row(args, workgroup, parts, row, query_head,
                  static_cast<T*>(args.out) + (token_start + where.quotient) * args.out_token_stride +
                      query_head * args.out_head_stride);
    }
  }

 private:
  // The item's first part is the last thing its workgroup did, the others the first thing theirs did.
  RF_DEVICE static int64_t slot(int workgroup, int part) { return part == 0 ? 2 * workgroup + 1 : 2 * (workgroup + part); }

  RF_DEVICE static void combine_row(const Args& args, int workgroup, int parts, int row, int64_t query_head, T* out) {
    Shared& shared = shared_memory<Shared>();
    const int column = thread_index() % kRowLanes, group = thread_index() / kRowLanes;
    SoftmaxState sum = kNoKeys;
    Vec<float, kRun> total = fill<float, kRun>(0.0f);
    for (int part = group; part < parts; part += kGroups) {
      const int64_t at = slot(workgroup, part) * args.block_rows + row;
      const Vec<float, 2> stats = load_vec<float, 2>(args.partial_stats + 2 * at);
      const Vec<float, kRun> piece = load_vec<float, kRun>(args.partial_out + at * HeadSize + column * kRun);
      add(sum, total, {stats[0], stats[1]}, piece);
    }
    shared.out[group][column] = total;
    if (column == 0) shared.row[group] = sum;
    barrier();
    if (group == 0) {
      for (int g = 1; g < kGroups; ++g) add(sum, total, shared.row[g], shared.out[g][column]);
      const float scale = final_scale(sum, args.sinks ? args.sinks[query_head] * kLog2E : kNoScore);
      Vec<T, kRun> result;
      RF_UNROLL
      for (int j = 0; j < kRun; ++j) result[j] = from_float<T>(total[j] * scale);
      store_vec(out + column * kRun, result);
    }
    barrier();
  }

  RF_DEVICE static void add(SoftmaxState& sum, Vec<float, kRun>& total, SoftmaxState part, const Vec<float, kRun>& piece) {
    float scale_sum, scale_part;
    sum = merge(sum, part, scale_sum, scale_part);
    RF_UNROLL
    for (int j = 0; j < kRun; ++j) total[j] = total[j] * scale_sum + piece[j] * scale_part;
  }
};

}  // namespace rocmforge
