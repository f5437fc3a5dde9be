// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding of query and key rows, in place or into other tensors.
#pragma once

#include "../cache/paged_rows.h"
#include "../target/device.h"
#include "head_group.h"

namespace rocmforge {

template <class T, int N, bool kSections>
struct Rotary {
  using Args = RotaryArgs;
  // Few but busy lanes: each has twice kRotaryHeads vectors in flight, and takes the registers for that.
  static constexpr unsigned kWavesPerUnit = 3;
  // Small groups, here and beside the KV write: on an H200 1 to 2 % faster than of 128 lanes for GLM-4-9B and with
  // norms, the same for full rotary and GLM-4.6.
  static constexpr LaunchConfig kConfig{
      .wave = 1, .threads = 64, .blocks_per_unit = kSections ? 6 : 8, .early = kEarlyLaunch};

  RF_DEVICE static HeadGroup<T> find_group(const Args& args, Quotient sequence, int index) {
    const bool is_query = index < args.query_groups;
    const HeadRows& from = is_query ? args.query : args.key;
    const HeadRows& to = is_query ? args.query_out : args.key_out;
    return head_group(
        token_rows<T>(from, sequence.remainder) + sequence.quotient * args.query_batch_stride, from.head_stride,
        token_rows<T>(to, sequence.remainder) + sequence.quotient * args.query_out_batch_stride, to.head_stride,
        is_query ? args.query_heads : args.key_heads, args.group_heads, is_query ? index : index - args.query_groups);
  }

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = begin_lane<kConfig.threads>();
    if (index >= args.lanes) return;
    const Quotient token = divide(static_cast<int32_t>(index), args.token_lanes);
    const Quotient sequence = divide(token.quotient, args.sequence);
    const TokenRow row = token_table_row(args.table, sequence.remainder);
    const auto group = find_group(args, sequence, token.remainder >> args.lane_shift);
    const int lanes = 1 << args.lane_shift;
    for (int i = token.remainder & (lanes - 1); i < args.row_items; i += lanes) {
      const auto item = row_item<N>(args.shape, i);
      const auto bits = load_group<kRotaryHeads>(group, item);
      if (item.part < 0) {
        store_group(group, item, bits, true, [](ItemFloats<N>&, int) {});
        continue;
      }
      const auto table = load_cos_sin<T, N, kSections>(args.table, row, item.part, item.first);
      store_group(group, item, bits, false,
                  [&](ItemFloats<N>& values, int) { rotate(values, table, args.shape.interleaved); });
    }
  }
};

}  // namespace rocmforge
