// SPDX-License-Identifier: Apache-2.0
// Joins the partial results of items that the plan's cuts fell into. Lanes take a few dims of a row each. Where an item
// has few parts, each group of lanes takes a row; where it has more, a workgroup takes a row, and groups of lanes
// different parts of it; where it has many (a long request at batch 1 is cut into more than a hundred), a quarter of
// the row's dims, so that more groups share the parts. Nobody waits for two memory latencies or for one part after
// another: parts are requested together and weighted by their common maximum.
#pragma once

#include "packed_rows.h"
#include "schedule/schedule.h"
#include "softmax.h"

namespace rocmforge {

template <class T, int ValueDims>
struct Combine {
  using Args = AttentionArgs;
  static constexpr int kRun = 4;  // dims a lane owns
  static constexpr int kRowLanes = ValueDims / kRun;
  // Groups of lanes: as many as make whole waves of 64 and about 256 lanes in all, few enough to wait for attention's
  // end beside it where launches overlap. `step` groups are the fewest that fill their waves.
  static constexpr int kGroups = [] {
    if (kHostTarget) return 1;
    int step = 1;
    while (step * kRowLanes % 64) ++step;
    return step * max(1, 256 / (step * kRowLanes));
  }();
  static constexpr int kSlices = kHostTarget ? 1 : 4;  // of a row with many parts
  static_assert(kRowLanes % kSlices == 0);
  struct Shared {
    Vec<float, kRun> out[kGroups * kRowLanes];  // [group][lane of a slice]
    SoftmaxState row[kGroups * kSlices];
  };
  static constexpr LaunchConfig kConfig{.wave = 1,
                                        .threads = kGroups * kRowLanes,
                                        .shared_bytes = sizeof(Shared),
                                        .blocks_per_unit = kHostTarget ? 1 : 4,
                                        .early = kEarlyLaunch};

  RF_DEVICE static void run(const Args& args) {
    let_next_start();
    const Plan plan{args.work.plan, args.work.workgroups};
    const PlanHeader header = plan.header();
    const int heads = header.join_heads;
    const int few_jobs = ceil_div(args.work.block_rows, kGroups);
    const int slices = header.reaches_many ? kSlices : 1;
    const int jobs = header.beyond_few ? args.work.block_rows * slices : few_jobs;  // a join
    int job = block_index(0), number = job / jobs;
    Join join = plan.join(header, min(number, max(header.joins - 1, 0)));
    issue_loads(join);
    wait_for_previous();
    while (number < header.joins) {
      const int row_job = job - number * jobs;
      if (join.parts >= kManyParts) join_row<kSlices>(args, join, heads, row_job / kSlices, row_job % kSlices);
      else if (join.parts > kFewParts) join_row<1>(args, join, heads, row_job, 0);
      else if (row_job < few_jobs) join_few(args, join, heads, row_job * kGroups + thread_index() / kRowLanes);
      job += args.work.combine_blocks;
      number = job / jobs;
      join = plan.join(header, min(number, header.joins - 1));
    }
  }

 private:
  // Of one row per group of lanes.
  RF_DEVICE static void join_few(const Args& args, const Join& join, int heads, int row) {
    if (row >= rows(args, join)) return;
    const int dim = thread_index() % kRowLanes * kRun;
    const float sink = sink_of(args, join, row);
    Sum sum;
    add_parts<kFewParts>(args, join, heads, row, dim, 0, 1, sum);
    write(args, join, row, dim, sum, sink);
  }

  // Of one row, slice `slice` of Slices, by all lanes.
  template <int Slices>
  RF_DEVICE static void join_row(const Args& args, const Join& join, int heads, int row, int slice) {
    constexpr int kPartLanes = kRowLanes / Slices, kPartGroups = kGroups * Slices;
    if (row >= rows(args, join)) return;
    const int group = thread_index() / kPartLanes, column = thread_index() % kPartLanes;
    const int dim = (slice * kPartLanes + column) * kRun;
    const float sink = sink_of(args, join, row);
    Sum sum;
    add_parts<5>(args, join, heads, row, dim, group, kPartGroups, sum);
    Shared& shared = shared_memory<Shared>();
    shared.out[thread_index()] = sum.out;
    if (column == 0) shared.row[group] = sum.row;
    barrier();
    const int with_parts = min(kPartGroups, join.parts);
    constexpr int kAtOnce = min(kPartGroups, 8);
    if (group == 0) {
      Sum total;
      RF_NO_UNROLL  // clang would take all turns at once, with 326 registers instead of 86
      for (int first = 0; first < with_parts; first += kAtOnce) {
        SoftmaxState rows[kAtOnce];
        Vec<float, kRun> pieces[kAtOnce];
        RF_UNROLL
        for (int i = 0; i < kAtOnce; ++i) {
          const int g = min(first + i, with_parts - 1);
          rows[i] = shared.row[g];
          pieces[i] = shared.out[g * kPartLanes + column];
        }
        add(total, rows, pieces, with_parts - first);
      }
      write(args, join, row, dim, total, sink);
    }
    barrier();
  }

  RF_DEVICE static int rows(const Args& args, const Join& join) {
    return min(args.work.block_rows, join.rows - join.first_row);
  }

  // A row's parts so far: their keys as one, and the lane's dims.
  struct Sum {
    SoftmaxState row = kNoKeys;
    Vec<float, kRun> out = fill<float, kRun>(0.0f);
  };

  // Parts first, first + step, ... of one row's dims, AtOnce of them requested before the first is used.
  template <int AtOnce>
  RF_DEVICE static void add_parts(const Args& args, const Join& join, int heads, int row, int dim, int first, int step,
                                  Sum& sum) {
    constexpr int kAtOnce = kHostTarget ? 1 : AtOnce;
    for (int part = first; part < join.parts; part += kAtOnce * step) {
      SoftmaxState rows[kAtOnce];
      Vec<float, kRun> pieces[kAtOnce];
      RF_UNROLL
      for (int i = 0; i < kAtOnce; ++i) {
        const int64_t at =
            int64_t{join.place(min(part + i * step, join.parts - 1), heads)} * args.work.block_rows + row;
        const auto stats = load_vec<float, 2>(args.work.partial_stats + 2 * at);
        rows[i] = {stats[0], stats[1]};
        pieces[i] = load_vec<float, kRun>(args.work.partial_out + at * ValueDims + dim);
      }
      add(sum, rows, pieces, ceil_div(join.parts - part, step));
    }
  }

  // Adds the first `count` of N parts, or all; without branches, behind which loads would wait for each other.
  template <int N>
  RF_DEVICE static void add(Sum& sum, const SoftmaxState (&rows)[N], const Vec<float, kRun> (&pieces)[N], int count) {
    float maximum = sum.row.maximum;
    RF_UNROLL
    for (int i = 0; i < N; ++i) maximum = max(maximum, i < count ? rows[i].maximum : kNoScore);
    scale(sum, exp2(sum.row.maximum - maximum));
    sum.row.maximum = maximum;
    RF_UNROLL
    for (int i = 0; i < N; ++i) {
      const float weight = exp2(rows[i].maximum - maximum);
      sum.row.sum += i < count ? rows[i].sum * weight : 0.0f;
      RF_UNROLL
      for (int j = 0; j < kRun; ++j) sum.out[j] += i < count ? pieces[i][j] * weight : 0.0f;
    }
  }

  RF_DEVICE static void scale(Sum& sum, float factor) {
    sum.row.sum *= factor;
    RF_UNROLL
    for (int j = 0; j < kRun; ++j) sum.out[j] *= factor;
  }

  RF_DEVICE static float sink_of(const Args& args, const Join& join, int row) {
    const Quotient at = split_row(args.heads, join.first_row + row);
    return args.softmax.sinks ? args.softmax.sinks[query_head(args.heads, join.head, at)] * kLog2E : kNoScore;
  }

  RF_DEVICE static void write(const Args& earlier, const Join& join, int row, int dim, Sum& sum, float sink) {
    const Args& args = reload_args(earlier);  // gfx9 has no scalar registers left for them meanwhile
    const Quotient at = split_row(args.heads, join.first_row + row);
    const int64_t head = query_head(args.heads, join.head, at), token = join.token_start + at.quotient;
    if (args.lse.data && dim == 0)
      args.lse.data[head * args.lse.head_stride + token * args.lse.token_stride] = log_sum(sum.row, sink);
    if (dim >= args.out.dims) return;
    scale(sum, final_scale(sum.row, sink));
    Vec<T, kRun> result;
    RF_UNROLL
    for (int j = 0; j < kRun; ++j) result[j] = from_float<T>(sum.out[j]);
    store_vec(static_cast<T*>(args.out.data) + token * args.out.token_stride + head * args.out.head_stride + dim,
              result);
  }
};

}  // namespace rocmforge
