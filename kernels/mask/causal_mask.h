// SPDX-License-Identifier: Apache-2.0
// The causal mask on scores, in place. Only masked elements are written; kept ones are not even read.
#pragma once

#include "../division/divide.h"
#include "../target/device.h"
#include "args.h"

namespace rocmforge {

template <class T>
struct MinusInfinity;
template <>
struct MinusInfinity<float> {
  RF_DEVICE static float value() { return bits_to_float(0xff800000u); }
};
template <>
struct MinusInfinity<bf16> {
  RF_DEVICE static bf16 value() { return {0xff80u}; }
};
template <>
struct MinusInfinity<f16> {
  RF_DEVICE static f16 value() { return {0xfc00u}; }
};

// N > 1 needs neighbouring columns to be neighbours in memory; rows may start anywhere.
template <class T, int N>
struct CausalMask {
  using Args = CausalMaskArgs;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 256};
  static constexpr int kSlots = kMaskLaneSlots;

  RF_DEVICE static T* matrix(const Args& args, int32_t batch) {
    T* start = static_cast<T*>(args.scores);
    for (int dim = 0; dim < args.batch_dims; ++dim) {
      const Quotient part = divide(batch, args.batch_size[dim]);
      start += part.remainder * args.batch_stride[dim];
      batch = part.quotient;
    }
    return start;
  }

  // The elements of a row from the first masked one on, and how many of T lie between a slot's start and it.
  struct Tail {
    T* start;
    int count;
    int lead;
    int slots;
  };

  RF_DEVICE static Tail row_tail(const Args& args, T* scores, int row) {
    const int count = args.masked - row;
    T* start = scores + row * args.row_stride + (args.columns - count) * args.column_stride;
    int lead = 0;
    if constexpr (N > 1) lead = static_cast<int>(reinterpret_cast<uint64_t>(start) / sizeof(T) % N);
    return {start, count, lead, ceil_div(lead + count, N)};
  }

  RF_DEVICE static void write(const Args& args, const Tail& tail, int slot) {
    const T value = MinusInfinity<T>::value();
    const int first = slot * N - tail.lead;
    if constexpr (N > 1) {
      if (first >= 0 && first + N <= tail.count) {
        store_vec(tail.start + first, fill<T, N>(value));
        return;
      }
    }
    for (int i = max(first, 0); i < min(first + N, tail.count); ++i) tail.start[i * args.column_stride] = value;
  }

  RF_DEVICE static void run(const Args& args) {
    const Quotient block = divide(block_index(0), args.pair_blocks);
    const int64_t first_pair = static_cast<int64_t>(block.quotient) * args.block_pairs;
    RF_UNROLL
    for (int i = 0; i < kSlots; ++i) {
      const int index = (block.remainder * kSlots + i) * kConfig.threads + thread_index();
      const Quotient local = divide(index, args.pair_slots);
      const int64_t pair = first_pair + local.quotient;
      if (local.quotient >= args.block_pairs || pair >= args.all_pairs) return;
      const Quotient where = divide(static_cast<int32_t>(pair), args.pairs);
      T* scores = matrix(args, where.quotient);
      const Tail upper = row_tail(args, scores, where.remainder);
      const int lower_row = args.rows - 1 - where.remainder;
      int slot = local.remainder;
      if (slot < upper.slots) {
        write(args, upper, slot);
        continue;
      }
      slot -= upper.slots;
      if (lower_row == where.remainder) continue;  // the middle row of an odd number is a pair by itself
      const Tail lower = row_tail(args, scores, lower_row);
      if (slot < lower.slots) write(args, lower, slot);
    }
  }
};

}  // namespace rocmforge
