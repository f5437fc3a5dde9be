// SPDX-License-Identifier: Apache-2.0
// Between the QKV product and attention, in one launch: the RMS norm of every query and key head (where the model has
// one), rotary position embedding, and keys and values into the paged cache.
#pragma once

#include "../cache/paged_rows.h"
#include "../target/device.h"
#include "head_group.h"

namespace rocmforge {

template <class T, int N, bool kNorm, bool kSections>
struct RotaryKvWrite {
  using Args = RotaryKvWriteArgs;
  static constexpr int kHeads = kNorm ? kNormWriteHeads : kWriteHeads;
  // Few but busy lanes: each has twice so many vectors in flight, and takes the registers for that.
  static constexpr unsigned kWavesPerUnit = kNorm && kSections ? 2 : 3;
  // Lanes of a row exchange their sums of squares; without the norm no lane needs another.
  static constexpr int kWave = kNorm ? kNativeWave : 1;
  static constexpr LaunchConfig kConfig{
      .wave = kWave, .threads = 64, .blocks_per_unit = kNorm || kSections ? 6 : 8, .early = kEarlyLaunch};
  enum Kind { kQuery, kKey, kValue };

  // One lane's place: which heads of which token, and which of their items.
  struct Place {
    Kind kind;
    HeadGroup<T> group;
    int items;        // of a row
    int lane, lanes;  // of a row: the lane does the items lane, lane + lanes, ...
  };

  RF_DEVICE static Place find_place(const Args& args, int32_t token, int32_t lane) {
    const int query_lanes = args.query_groups << args.query_shift;
    if (lane < query_lanes) {
      const int lanes = 1 << args.query_shift;
      return {kQuery,
              head_group(token_rows<T>(args.query, token), args.query.head_stride, token_rows<T>(args.query_out, token),
                         args.query_out.head_stride, args.query_heads, args.group_heads, lane >> args.query_shift),
              args.query_items, lane & (lanes - 1), lanes};
    }
    const int kv_lane = lane - query_lanes;
    const int lanes = 1 << args.kv_shift;
    const int index = kv_lane >> args.kv_shift;
    const bool is_value = index >= args.kv_groups;
    const HeadRows& from = is_value ? args.value : args.key;
    T* const cache = static_cast<T*>(args.cache.data);
    return {is_value ? kValue : kKey,
            head_group(token_rows<T>(from, token), from.head_stride, is_value ? cache + args.shape.head_size : cache,
                       args.cache.head_stride, args.kv_heads, args.group_heads,
                       is_value ? index - args.kv_groups : index),
            is_value ? ceil_div(args.shape.head_size, 2 * N) : args.shape.items, kv_lane & (lanes - 1), lanes};
  }

  // Keys and values: the target, so far in slot 0, to where the token's slot is, if it has one.
  RF_DEVICE static void move_target(const Args& args, int64_t slot, Place& place) {
    place.group.target += slot_offset(args.cache, slot);
    if (!has_slot(args.cache, slot)) place.group.heads = 0;
  }

  RF_DEVICE static Item<N> find_item(const Args& args, const Place& place, int index) {
    if (place.kind == kValue) return plain_item<N>(0, args.shape.head_size, place.items, index);
    return row_item<N>(args.shape, index);
  }

  // Adds the squares of every head's values to `sums`.
  RF_DEVICE static void add_squares(const Item<N>& item, const GroupBits<T, N, kHeads>& bits, float (&sums)[kHeads]) {
    RF_UNROLL
    for (int h = 0; h < kHeads; ++h) {
      const auto values = to_floats(bits.head[h]);
      float high = 0.0f;
      RF_UNROLL
      for (int i = 0; i < N; ++i) {
        sums[h] += values.x[i] * values.x[i];
        high += values.x[N + i] * values.x[N + i];
      }
      sums[h] += item.has_high ? high : 0.0f;
    }
  }

  // `scales`: the reciprocal root mean square of every head; unused without the norm.
  RF_DEVICE static void finish(const Args& args, const Place& place, const TokenRow& row, const Item<N>& item,
                               const GroupBits<T, N, kHeads>& bits, const float (&scales)[kHeads]) {
    const bool normed = kNorm && place.kind != kValue;
    if (item.part < 0 && !normed) {
      store_group(place.group, item, bits, true, [](ItemFloats<N>&, int) {});
      return;
    }
    ItemFloats<N> gain{};
    if (normed) {
      const auto* weight = static_cast<const T*>(place.kind == kQuery ? args.query_weight : args.key_weight);
      gain = to_floats(load_item<T, N>(weight, item));
    }
    CosSin<N> table{};
    if (item.part >= 0) table = load_cos_sin<T, N, kSections>(args.table, row, item.part, item.first);
    store_group(place.group, item, bits, false, [&](ItemFloats<N>& values, int h) {
      if (normed) {
        RF_UNROLL
        for (int i = 0; i < 2 * N; ++i) values.x[i] *= scales[h] * gain.x[i];
      }
      if (item.part >= 0) rotate(values, table, args.shape.interleaved);
    });
  }

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = begin_lane<kConfig.threads>();
    const bool exists = index < args.lanes;
    if (!kNorm && !exists) return;
    // With the norm all lanes of a wave meet in the shuffles below, also those without work.
    const Quotient token = divide(exists ? static_cast<int32_t>(index) : 0, args.token_lanes);
    const TokenRow row = token_table_row(args.table, token.quotient);
    Place place = find_place(args, token.quotient, token.remainder);
    const bool writes = place.kind != kQuery;
    const int64_t slot = writes ? find_slot(args.cache, token.quotient) : kNoSlot;
    const auto item = find_item(args, place, min(place.lane, place.items - 1));
    const auto bits = load_group<kHeads>(place.group, item);
    // The rows are on their way before the slot is waited for.
    if (writes) move_target(args, slot, place);
    if (!exists || place.lane >= place.items) place.group.heads = 0;
    // A row longer than its lanes hold at once (a narrow access to a large head) is read on, for the norm twice.
    const int rest = place.group.heads == 0 ? place.items : place.lane + place.lanes;
    float scales[kHeads] = {};
    if constexpr (kNorm) {
      if (place.lane < place.items) add_squares(item, bits, scales);
      for (int i = rest; i < place.items; i += place.lanes) {
        const auto later = find_item(args, place, i);
        add_squares(later, load_group<kHeads>(place.group, later), scales);
      }
      RF_UNROLL
      for (int h = 0; h < kHeads; ++h) {
        for (int mask = (1 << args.kv_shift) / 2; mask > 0; mask /= 2) scales[h] += shuffle_xor<kWave>(scales[h], mask);
        scales[h] = rsqrt(scales[h] * args.inverse_head_size + args.epsilon);
      }
    }
    if (place.group.heads > 0) finish(args, place, row, item, bits, scales);
    for (int i = rest; i < place.items; i += place.lanes) {
      const auto later = find_item(args, place, i);
      finish(args, place, row, later, load_group<kHeads>(place.group, later), scales);
    }
  }
};

}  // namespace rocmforge
