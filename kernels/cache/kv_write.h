// SPDX-License-Identifier: Apache-2.0
// New keys and values into the paged cache: one lane moves one vector of N elements.
#pragma once

#include "../target/device.h"
#include "paged_rows.h"

namespace rocmforge {

// T is a type of the elements' size: bits are moved, never converted.
template <class T, int N>
struct KvWrite {
  using Args = KvWriteArgs;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 256};

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = static_cast<int64_t>(block_index(0)) * kConfig.threads + thread_index();
    if (index >= args.lanes) return;
    const Quotient token = divide(static_cast<int32_t>(index), args.token_lanes);
    const Quotient head = divide(token.remainder, args.row_lanes);
    T* rows = paged_rows<T>(args.cache, token.quotient);
    if (rows == nullptr) return;
    // K and V lie side by side in a cache row, so a head's lanes write one contiguous run.
    const int32_t element = head.remainder * N;
    const bool is_key = element < args.head_size;
    const HeadRows& from = is_key ? args.key : args.value;
    const T* source = token_rows<T>(from, token.quotient) + head.quotient * from.head_stride + element;
    store_vec(rows + head.quotient * args.cache.head_stride + element,
              load_vec<T, N>(is_key ? source : source - args.head_size));
  }
};

}  // namespace rocmforge
