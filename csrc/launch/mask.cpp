// SPDX-License-Identifier: Apache-2.0
#include "launch/mask.h"

#include <algorithm>

#include "launch/lanes.h"

namespace rocmforge {

void launch_causal_mask(OpDevice& device, Stream stream, const CausalMaskCall& call) {
  const int64_t masked = std::max<int64_t>(0, call.columns - 1 - call.cache_len);
  const int64_t rows = std::min(call.rows, masked);
  int64_t batch = 1;
  for (int dim = 0; dim < call.batch_dims; ++dim) batch *= call.batch_size[dim];
  if (rows == 0 || batch == 0) return;

  const bool contiguous = call.column_stride == 1;
  const int64_t width = contiguous ? 16 / element_size(call.element) : 1;
  Kernel& kernel = device.causal_mask.get(contiguous ? Width::k16 : Width::kElement, call.element);
  // Each of a pair's two tails may start and end inside a slot.
  const int64_t pair_slots = (2 * masked - rows + 1 + 4 * (width - 1)) / width;
  const int64_t block_slots = int64_t{kMaskLaneSlots} * kernel.config().threads;
  const int64_t pair_blocks = ceil_quotient(pair_slots, block_slots);
  const int64_t block_pairs = std::max<int64_t>(1, block_slots / pair_slots);
  const int64_t pairs = ceil_quotient(rows, 2);

  CausalMaskArgs args{.scores = reinterpret_cast<void*>(call.scores),
                      .row_stride = call.row_stride,
                      .column_stride = call.column_stride,
                      .batch_stride = {},
                      .batch_size = {},
                      .pairs = make_fast_div(static_cast<uint32_t>(pairs)),
                      .pair_slots = make_fast_div(static_cast<uint32_t>(pair_slots)),
                      .pair_blocks = make_fast_div(static_cast<uint32_t>(pair_blocks)),
                      .all_pairs = batch * pairs,
                      .block_pairs = static_cast<int32_t>(block_pairs),
                      .batch_dims = call.batch_dims,
                      .rows = static_cast<int32_t>(rows),
                      .columns = static_cast<int32_t>(call.columns),
                      .masked = static_cast<int32_t>(masked)};
  for (int dim = 0; dim < call.batch_dims; ++dim) {
    args.batch_size[dim] = make_fast_div(static_cast<uint32_t>(call.batch_size[dim]));
    args.batch_stride[dim] = call.batch_stride[dim];
  }
  const int64_t blocks = ceil_quotient(args.all_pairs, block_pairs) * pair_blocks;
  kernel.launch({checked_lanes("causal_mask", blocks), 1, 1}, stream, args);
}

}  // namespace rocmforge
