// SPDX-License-Identifier: Apache-2.0
// Between the QKV product and attention, in one launch: the RMS norm of every query and key head (where the model has
// one), rotary position embedding, and keys and values into the paged cache.
#pragma once

#include "../cache/paged_rows.h"
#include "../target/device.h"
#include "row.h"

namespace rocmforge {

template <class T, int N, bool kNorm>
struct RotaryKvWrite {
  using Args = RotaryKvWriteArgs;
  // Lanes of a row exchange their sums of squares; without the norm no lane needs another.
  static constexpr int kWave = kNorm ? kNativeWave : 1;
  static constexpr unsigned kWavesPerUnit = 4;  // enough loads in flight to fill the memory pipe
  static constexpr LaunchConfig kConfig{.wave = kWave, .threads = 256};
  enum Kind { kQuery, kKey, kValue };

  // A row of one token: where it comes from and goes to (null: nowhere), and how its items are cut.
  struct Row {
    Kind kind;
    int32_t token;
    const T* source;
    T* target;
    int items;
    int lane, lanes;
  };

  RF_DEVICE static Row find_row(const Args& args, int32_t index) {
    const Quotient token = divide(index, args.token_lanes);
    const int query_lanes = args.query_heads << args.query_shift;
    Row row{};
    row.token = token.quotient;
    if (token.remainder < query_lanes) {
      const int head = token.remainder >> args.query_shift;
      row.kind = kQuery;
      row.source = head_row<T>(args.query, row.token, head);
      row.target = head_row<T>(args.query_out, row.token, head);
      row.items = args.query_items;
      row.lanes = 1 << args.query_shift;
      row.lane = token.remainder & (row.lanes - 1);
      return row;
    }
    const int lane = token.remainder - query_lanes;
    const int rank = lane >> args.kv_shift;
    const bool is_value = rank >= args.kv_heads;
    const int head = is_value ? rank - args.kv_heads : rank;
    row.kind = is_value ? kValue : kKey;
    row.source = head_row<T>(is_value ? args.value : args.key, row.token, head);
    row.target = paged_row<T>(args.cache, row.token, head);
    if (is_value && row.target != nullptr) row.target += args.shape.head_size;
    row.items = is_value ? ceil_div(args.shape.head_size, 2 * N) : args.shape.items;
    row.lanes = 1 << args.kv_shift;
    row.lane = lane & (row.lanes - 1);
    return row;
  }

  RF_DEVICE static Item<N> find_item(const Args& args, const Row& row, int index) {
    if (row.kind == kValue) return plain_item<N>(0, args.shape.head_size, row.items, index);
    return row_item<N>(args.shape, index);
  }

  RF_DEVICE static float sum_of_squares(const ItemBits<T, N>& bits) {
    const auto values = to_floats(bits);
    float sum = 0;
    RF_UNROLL
    for (int i = 0; i < 2 * N; ++i) sum += values.x[i] * values.x[i];
    return sum;
  }

  // `scale`: the reciprocal root mean square of the row.
  RF_DEVICE static void finish(const Args& args, const Row& row, const Item<N>& item, ItemBits<T, N> bits, float scale) {
    const bool normed = kNorm && row.kind != kValue;
    if (normed || item.part >= 0) {
      auto values = to_floats(bits);
      if (normed) {
        const auto* weight = static_cast<const T*>(row.kind == kQuery ? args.query_weight : args.key_weight);
        const auto gain = to_floats(load_item<T, N>(weight, item));
        RF_UNROLL
        for (int i = 0; i < 2 * N; ++i) values.x[i] *= scale * gain.x[i];
      }
      if (item.part >= 0) {
        rotate(values, load_cos_sin<T, N>(args.table, row.token, item.part, item.first), args.shape.interleaved);
      }
      bits = from_floats<T>(values);
    }
    store_item(row.target, item, bits);
  }

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = static_cast<int64_t>(block_index(0)) * kConfig.threads + thread_index();
    const bool exists = index < args.lanes;
    if constexpr (!kNorm) {
      if (!exists) return;
      const Row row = find_row(args, static_cast<int32_t>(index));
      if (row.target == nullptr) return;
      for (int i = row.lane; i < row.items; i += row.lanes) {
        const auto item = find_item(args, row, i);
        finish(args, row, item, load_item<T, N>(row.source, item), 1.0f);
      }
    } else {
      // All lanes of the wave meet in the shuffles below, also those without a row.
      const Row row = find_row(args, exists ? static_cast<int32_t>(index) : 0);
      const bool writes = exists && row.target != nullptr;
      const auto item = find_item(args, row, row.lane);
      const bool first = writes && row.lane < row.items;
      ItemBits<T, N> bits{};
      float sum = 0;
      if (first) {
        bits = load_item<T, N>(row.source, item);
        sum = sum_of_squares(bits);
      }
      if (writes) {
        for (int i = row.lane + row.lanes; i < row.items; i += row.lanes) {
          sum += sum_of_squares(load_item<T, N>(row.source, find_item(args, row, i)));
        }
      }
      for (int mask = (1 << args.kv_shift) / 2; mask > 0; mask /= 2) sum += shuffle_xor<kWave>(sum, mask);
      const float scale = rsqrt(sum * args.inverse_head_size + args.epsilon);
      if (first) finish(args, row, item, bits, scale);
      // A row longer than its lanes hold at once (a narrow access to a large head) is read again.
      if (writes) {
        for (int i = row.lane + row.lanes; i < row.items; i += row.lanes) {
          const auto later = find_item(args, row, i);
          finish(args, row, later, load_item<T, N>(row.source, later), scale);
        }
      }
    }
  }
};

}  // namespace rocmforge
