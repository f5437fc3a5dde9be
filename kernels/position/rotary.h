// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding of query and key rows, in place or into other tensors.
#pragma once

#include "../cache/paged_rows.h"
#include "../target/device.h"
#include "row.h"

namespace rocmforge {

template <class T, int N>
struct Rotary {
  using Args = RotaryArgs;
  static constexpr unsigned kWavesPerUnit = 4;  // enough loads in flight to fill the memory pipe
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 256};

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = static_cast<int64_t>(block_index(0)) * kConfig.threads + thread_index();
    if (index >= args.lanes) return;
    const Quotient token = divide(static_cast<int32_t>(index), args.token_lanes);
    const Quotient batch = divide(token.quotient, args.sequence);
    const int head = token.remainder >> args.lane_shift;
    const int lanes = 1 << args.lane_shift;
    const bool is_query = head < args.query_heads;
    const int row_head = is_query ? head : head - args.query_heads;
    const T* source = head_row<T>(is_query ? args.query : args.key, batch.remainder, row_head) +
                      batch.quotient * args.query_batch_stride;
    T* target = head_row<T>(is_query ? args.query_out : args.key_out, batch.remainder, row_head) +
                batch.quotient * args.query_out_batch_stride;
    for (int i = token.remainder & (lanes - 1); i < args.row_items; i += lanes) {
      const auto item = row_item<N>(args.shape, i);
      auto bits = load_item<T, N>(source, item);
      if (item.part >= 0) {
        auto values = to_floats(bits);
        rotate(values, load_cos_sin<T, N>(args.table, batch.remainder, item.part, item.first), args.shape.interleaved);
        bits = from_floats<T>(values);
      }
      store_item(target, item, bits);
    }
  }
};

}  // namespace rocmforge
