// SPDX-License-Identifier: Apache-2.0
// While the launch ahead of attention still runs, the page table and the first keys and values of a workgroup's share
// are brought into the L2: at decode, two memory latencies in a row. Nothing else is done with what is read here, for
// the table may be the launch ahead's work and hold anything as yet.
#pragma once

#include "../../division/divide.h"
#include "../problem/key_format.h"
#include "../schedule/schedule.h"

namespace rocmforge {

// A lane fetches a key of the first tile, and its value. Two tiles gained less, but for one short request (H200).
template <class Format>
RF_DEVICE void fetch_first_keys(const KeyPages& pages, const Share& share, const RowBlock& block, int tile_keys) {
  using Stored = typename Format::Stored;
  const int tile = block.first_tile + max(share.at - block.begin, 0);
  const int key = tile * tile_keys + thread_index();
  if (share.tiles == 0 || thread_index() >= tile_keys || key >= block.keys()) return;
  if constexpr (Format::kApart) {
    const int64_t row = load_unsettled(pages.block_table + block.request * pages.table_stride) + int64_t{key};
    if (row < 0 || row >= pages.blocks) return;
    const ValueRows& values = pages.values;
    fetch_to_l2(static_cast<const Stored*>(pages.data) + row * pages.token_stride + share.head * pages.head_stride,
                key_dims<Format>(pages) * sizeof(Stored));
    fetch_to_l2(static_cast<const Stored*>(values.data) + row * values.token_stride + share.head * values.head_stride,
                value_dims<Format>(pages) * sizeof(Stored));
    return;
  }
  const Quotient page = divide(key, pages.block_size);
  const int number = load_unsettled(pages.block_table + block.request * pages.table_stride + page.quotient);
  if (number < 0 || number >= pages.blocks) return;
  fetch_to_l2(static_cast<const Stored*>(pages.data) + number * pages.block_stride + share.head * pages.head_stride +
                  page.remainder * pages.token_stride,
              (key_dims<Format>(pages) + (Format::kValuesInKey ? 0 : value_dims<Format>(pages))) * sizeof(Stored));
}

}  // namespace rocmforge
