// SPDX-License-Identifier: Apache-2.0
// Joins the partial results of items that the plan's cuts fell into. Lanes take a few dims of a row each. Where an item
// has few parts, each group of lanes takes a row; where it has many (a long request at batch 1 is cut into more than a
// hundred), a workgroup takes half the dims of one row, and groups of lanes different parts of it.
#pragma once

#include "schedule.h"
#include "softmax.h"

namespace rocmforge {

template <class T, int HeadSize>
struct Combine {
  using Args = AttentionArgs;
  static constexpr int kRun = 4;  // dims a lane owns
  static constexpr int kRowLanes = HeadSize / kRun;
  // About 256 lanes, in whole waves of 64: as many groups as that takes, rounded to what fills the last wave. Few
  // enough to wait for attention's end beside it where launches overlap.
  static constexpr int kGroups = [] {
    if (kHostTarget) return 1;
    int step = 1;
    while (step * kRowLanes % 64) ++step;
    return step * max(1, 256 / (step * kRowLanes));
  }();
  static constexpr int kHalves = kHostTarget ? 1 : 2;
  static constexpr int kPartGroups = kGroups * kHalves, kPartLanes = kRowLanes / kHalves;
  static_assert(kRowLanes % kHalves == 0);
  struct Shared {
    Vec<float, kRun> out[kPartGroups][kPartLanes];
    SoftmaxState row[kPartGroups];
  };
  static constexpr LaunchConfig kConfig{
      .wave = 1, .threads = kGroups * kRowLanes, .shared_bytes = sizeof(Shared), .blocks_per_unit = kHostTarget ? 1 : 4,
      .early = kEarlyLaunch};

  RF_DEVICE static void run(const Args& args) {
    let_next_start();
    const Plan plan{args.plan, args.workgroups};
    const int joins = plan.joins();  // the plan is older than the launch ahead of this one
    Join join = plan.join(0);
    wait_for_previous();
    if (joins == 0) return;
    const int few_jobs = ceil_div(args.block_rows, kGroups);
    const int jobs = plan.many_parts() ? args.block_rows * kHalves : few_jobs;  // a join
    for (int job = block_index(0); job < joins * jobs; job += args.combine_blocks) {
      const int row_job = job % jobs;
      if (job >= jobs) join = plan.join(job / jobs);
      if (join.parts > kFewParts) join_many(args, join, row_job / kHalves, row_job % kHalves * kPartLanes * kRun);
      else if (row_job < few_jobs) join_few(args, join, row_job * kGroups + thread_index() / kRowLanes);
    }
  }

 private:
  // Of one row per group of lanes.
  RF_DEVICE static void join_few(const Args& args, const Join& join, int row) {
    if (row >= rows(args, join)) return;
    const int dim = thread_index() % kRowLanes * kRun;
    SoftmaxState sum = kNoKeys;
    Vec<float, kRun> total = fill<float, kRun>(0.0f);
    add_parts<kFewParts>(args, join, row, dim, 0, 1, sum, total);
    write(args, join, row, dim, sum, total);
  }

  // Of one row, the dims from first_dim on that the lanes of a group have.
  RF_DEVICE static void join_many(const Args& args, const Join& join, int row, int first_dim) {
    if (row >= rows(args, join)) return;
    const int group = thread_index() / kPartLanes, column = thread_index() % kPartLanes;
    const int dim = first_dim + column * kRun;
    SoftmaxState sum = kNoKeys;
    Vec<float, kRun> total = fill<float, kRun>(0.0f);
    add_parts<6>(args, join, row, dim, group, kPartGroups, sum, total);
    Shared& shared = shared_memory<Shared>();
    shared.out[group][column] = total;
    if (column == 0) shared.row[group] = sum;
    barrier();
    if (group == 0) {
      for (int g = 1; g < kPartGroups; ++g) add(sum, total, shared.row[g], shared.out[g][column]);
      write(args, join, row, dim, sum, total);
    }
    barrier();
  }

  RF_DEVICE static int rows(const Args& args, const Join& join) {
    return min(args.block_rows, join.rows - join.first_row);
  }

  // The item's first part is the last thing in its share, the others the first thing in theirs.
  RF_DEVICE static int64_t slot(int share, int part) { return part == 0 ? 2 * share + 1 : 2 * (share + part); }

  // Parts first, first + step, ... of one row's dims, AtOnce of them requested before the first is used.
  template <int AtOnce>
  RF_DEVICE static void add_parts(const Args& args, const Join& join, int row, int dim, int first, int step,
                                  SoftmaxState& sum, Vec<float, kRun>& total) {
    constexpr int kAtOnce = kHostTarget ? 1 : AtOnce;
    for (int part = first; part < join.parts; part += kAtOnce * step) {
      Vec<float, 2> stats[kAtOnce];
      Vec<float, kRun> piece[kAtOnce];
      RF_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int64_t at = slot(join.share, min(part + i * step, join.parts - 1)) * args.block_rows + row;
        stats[i] = load_vec<float, 2>(args.partial_stats + 2 * at);
        piece[i] = load_vec<float, kRun>(args.partial_out + at * HeadSize + dim);
      }
      RF_UNROLL
      for (int i = 0; i < kAtOnce; ++i)
        if (part + i * step < join.parts) add(sum, total, {stats[i][0], stats[i][1]}, piece[i]);
    }
  }

  RF_DEVICE static void write(const Args& args, const Join& join, int row, int dim, SoftmaxState sum,
                              const Vec<float, kRun>& total) {
    const Quotient where = divide(join.first_row + row, args.group);
    const int64_t query_head = static_cast<int64_t>(join.head) * args.group.divisor + where.remainder;
    const float scale = final_scale(sum, args.sinks ? args.sinks[query_head] * kLog2E : kNoScore);
    Vec<T, kRun> result;
    RF_UNROLL
    for (int j = 0; j < kRun; ++j) result[j] = from_float<T>(total[j] * scale);
    store_vec(static_cast<T*>(args.out) + (join.token_start + where.quotient) * args.out_token_stride +
                  query_head * args.out_head_stride + dim,
              result);
  }

  RF_DEVICE static void add(SoftmaxState& sum, Vec<float, kRun>& total, SoftmaxState part,
                            const Vec<float, kRun>& piece) {
    float scale_sum, scale_part;
    sum = merge(sum, part, scale_sum, scale_part);
    RF_UNROLL
    for (int j = 0; j < kRun; ++j) total[j] = total[j] * scale_sum + piece[j] * scale_part;
  }
};

}  // namespace rocmforge
