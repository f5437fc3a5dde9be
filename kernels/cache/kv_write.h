// SPDX-License-Identifier: Apache-2.0
// New keys and values into the paged cache: one lane moves N elements of each.
#pragma once

#include "../target/device.h"
#include "paged_rows.h"

namespace rocmforge {

// T is a type of the elements' size: bits are moved, never converted.
template <class T, int N>
struct KvWrite {
  using Args = KvWriteArgs;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 256, .early = kEarlyLaunch};

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = begin_lane<kConfig.threads>();
    if (index >= args.lanes) return;
    const Quotient token = divide(static_cast<int32_t>(index), args.token_lanes);
    const Quotient head = divide(token.remainder, args.row_lanes);
    // The slot is looked up while the rows, which exist whatever it says, are on their way.
    const int64_t slot = find_slot(args.cache, token.quotient);
    const int32_t element = head.remainder * N;
    const auto key = load_vec<T, N>(row_of(args.key, token.quotient, head) + element);
    const auto value = load_vec<T, N>(row_of(args.value, token.quotient, head) + element);
    if (!has_slot(args.cache, slot)) return;
    T* const row = static_cast<T*>(args.cache.data) + slot_offset(args.cache, slot) +
                   head.quotient * args.cache.head_stride + element;
    store_vec(row, key);
    store_vec(row + args.head_size, value);
  }

 private:
  RF_DEVICE static const T* row_of(const HeadRows& rows, int32_t token, Quotient head) {
    return token_rows<T>(rows, token) + head.quotient * rows.head_stride;
  }
};

}  // namespace rocmforge
