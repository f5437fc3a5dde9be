// SPDX-License-Identifier: Apache-2.0
#include "launch/cache.h"

#include <algorithm>

#include "launch/lanes.h"

namespace rocmforge {

PagedRows CacheView::args() const {
  return {.data = reinterpret_cast<void*>(data),
          .block_stride = block_stride,
          .head_stride = head_stride,
          .token_stride = token_stride,
          .slots = reinterpret_cast<const int64_t*>(slots),
          .slot_end = blocks * block_size,
          .slot_count = static_cast<int32_t>(slot_count),
          .block_size = make_fast_div(static_cast<uint32_t>(block_size))};
}

void launch_kv_write(OpDevice& device, Stream stream, const KvWriteCall& call) {
  const int64_t tokens = std::min(call.tokens, call.cache.slot_count);
  if (tokens == 0 || call.heads == 0) return;
  Alignment alignment(call.element);
  alignment.elements(call.head_size);
  call.key.align(alignment);
  call.value.align(alignment);
  call.cache.align(alignment);
  const Width width = alignment.widest();
  const int64_t row_lanes = call.head_size / vector_elements(call.element, width);
  const int64_t lanes = tokens * call.heads * row_lanes;
  const KvWriteArgs args{.key = call.key.args(),
                         .value = call.value.args(),
                         .cache = call.cache.args(),
                         .token_lanes = make_fast_div(static_cast<uint32_t>(call.heads * row_lanes)),
                         .row_lanes = make_fast_div(static_cast<uint32_t>(row_lanes)),
                         .lanes = checked_lanes("kv_write", lanes),
                         .head_size = static_cast<int32_t>(call.head_size)};
  Kernel& kernel = device.kv_write.get(width, call.element);
  kernel.launch(grid_of(kernel, lanes), stream, args);
}

void launch_latent_kv_write(OpDevice& device, Stream stream, const LatentKvWriteCall& call) {
  const int64_t tokens = std::min(call.tokens, call.cache.slot_count);
  if (tokens == 0) return;
  Alignment alignment(call.element);
  alignment.elements(call.latent_dims).elements(call.rope_dims);
  call.latent.align(alignment);
  call.rope.align(alignment);
  call.cache.align(alignment);
  const Width width = alignment.widest();
  const int64_t row = call.latent_dims + call.rope_dims;
  const int vector = vector_elements(call.element, width);
  const int64_t row_lanes = ceil_quotient(row, 2 * vector);
  const int64_t lanes = tokens * row_lanes;
  const LatentKvWriteArgs args{.latent = call.latent.args(),
                               .rope = call.rope.args(),
                               .cache = call.cache.args(),
                               .row_lanes = make_fast_div(static_cast<uint32_t>(row_lanes)),
                               .lanes = checked_lanes("latent_kv_write", lanes),
                               .half = static_cast<int32_t>(row_lanes * vector),
                               .latent_dims = static_cast<int32_t>(call.latent_dims),
                               .row = static_cast<int32_t>(row)};
  Kernel& kernel = device.latent_kv_write.get(width, call.element);
  kernel.launch(grid_of(kernel, lanes), stream, args);
}

}  // namespace rocmforge
