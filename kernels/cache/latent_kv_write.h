// SPDX-License-Identifier: Apache-2.0
// New tokens' rows into the paged cache of latent attention: one lane moves two vectors of N elements of a row.
#pragma once

#include "../target/words.h"
#include "paged_rows.h"

namespace rocmforge {

// T is a type of the elements' size: bits are moved, never converted.
template <class T, int N>
struct LatentKvWrite {
  using Args = LatentKvWriteArgs;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 256, .early = kEarlyLaunch};

  RF_DEVICE static void run(const Args& args) {
    const int64_t index = begin_lane<kConfig.threads>();
    if (index >= args.lanes) return;
    const Quotient token = divide(static_cast<int32_t>(index), args.row_lanes);
    const int64_t slot = find_slot(args.cache, token.quotient);
    const T* const latent = token_rows<T>(args.latent, token.quotient);
    const T* const rope = token_rows<T>(args.rope, token.quotient);
    const auto load = [&](int32_t element) {
      const bool is_latent = element < args.latent_dims;
      return load_words<T, N>((is_latent ? latent : rope) + (is_latent ? element : element - args.latent_dims));
    };
    // Half a row apart, so that neighbouring lanes touch neighbouring memory. A row may be an odd number of vectors.
    const int32_t low = token.remainder * N;
    const int32_t high = low + args.half;
    const bool has_high = high < args.row;
    const auto low_vector = load(low);
    const auto high_vector = load(has_high ? high : low);
    // Rows, which exist whatever the slot says, are on their way before it is waited for.
    issue_loads(low_vector);
    issue_loads(high_vector);
    schedule_fence();
    if (!has_slot(args.cache, slot)) return;
    T* const row = static_cast<T*>(args.cache.data) + slot_offset(args.cache, slot);
    store_words(row + low, low_vector);
    if (has_high) store_words(row + high, high_vector);
  }
};

}  // namespace rocmforge
