// SPDX-License-Identifier: Apache-2.0
// NVIDIA: 255 registers a thread.
#pragma once

#include "../../matrix/mma_sm80.h"
#include "../../matrix/mma_sm90.h"
#include "../../matrix/mma_sm90_keys.h"
#include "tuning.h"

namespace rocmforge {

// More than one tile of rows: as many waves, which share the keys. K's rows are padded to odd multiples of 64 bytes and
// V's by 16 bytes, for a quarter-warp reads two rows of K (64 bytes of each) but four rows of V, each the second after
// the last (32 bytes of each).
template <>
struct Tuning<MmaSm80> {
  template <class P, int QueryTiles>
  static constexpr auto decode() {
    constexpr int kDims = P::kMostDims;
    if constexpr (P::kDimsShared) return shared_dims<P, QueryTiles>();
    else if constexpr (QueryTiles > 1)
      return Choice<Waves<Ring>>{
          .block = {.pv_groups = kDims <= 128 ? 2 : 1},
          .loop = {.feed = {.row_waves = QueryTiles, .stages = 3, .key_pad = key_pad(P::kKeyDims), .value_pad = 8},
                   .shared_query = kDims > 64},
          .residency = {.blocks_per_unit = kDims < 128    ? 4
                                           : kDims == 128 ? 3
                                                          : 2}};
    else
      return Choice<Waves<Direct>>{
          .block = {},
          .loop = {.feed = {.key_waves = 4, .alternate = kDims > 128}, .shared_query = kDims > 128},
          .residency = {.blocks_per_unit = kDims <= 80 ? 3 : 2}};
  }
  template <class P>
  static constexpr auto prefill() {
    constexpr bool wide = P::kMostDims > 128;
    if constexpr (P::kDimsShared) return shared_dims<P, 2>();
    else
      return Choice<Waves<Ring>>{.block = {.query_tiles = wide ? 1 : 2, .pv_groups = 2},
                                 .loop = {.feed = {.row_waves = wide ? 8 : 4,
                                                   .stages = wide ? 2 : 3,
                                                   .key_pad = key_pad(P::kKeyDims),
                                                   .value_pad = 8},
                                          .shared_query = true},
                                 .residency = {.blocks_per_unit = wide ? 1 : 2, .rounds = kRounds}};
  }

 private:
  static constexpr int key_pad(int dims) { return (96 - dims % 64) % 64; }

  // Waves share the dims. Where values lie apart from their keys, 16 of them take as much shared memory as 32 latents.
  template <class P, int QueryTiles>
  static constexpr auto shared_dims() {
    return Choice<Waves<Ring>>{
        .block = {.query_tiles = min(QueryTiles, 2), .pv_groups = P::Format::kValuesInKey ? 2 : 1},
        .loop = {.feed = {.row_waves = 1, .stages = 3, .key_pad = 8, .value_pad = 8}, .dim_waves = 8, .key_parts = 2},
        .residency = {.blocks_per_unit = 1}};
  }
};

// From 33 rows on, 64 rows of a warpgroup multiply 64 keys straight from shared memory (32 keys at 256 dims, for
// registers). Prefill has as many groups as registers allow: one's softmax hides behind the others' products.
template <>
struct Tuning<MmaSm90> {
  template <class P, int QueryTiles>
  static constexpr auto decode() {
    if constexpr (P::kDimsShared) return latent<P>(min(QueryTiles, 3));
    else if constexpr (QueryTiles < 4) return Tuning<MmaSm80>::decode<P, QueryTiles>();
    else return warpgroups<P>(1, 3, {.blocks_per_unit = P::kMostDims <= 64 ? 4 : 2});
  }
  template <class P>
  static constexpr auto prefill() {
    constexpr int kDims = P::kMostDims, groups = kDims <= 64 ? 4 : kDims <= 128 ? 3 : 2;
    constexpr int stages = kDims > 128 && kDims <= 192 ? 4 : 6;
    if constexpr (P::kDimsShared) return latent<P>(4);
    else return warpgroups<P>(groups, stages, {.blocks_per_unit = 1, .rounds = kRounds});
  }

 private:
  template <class P>
  static constexpr auto latent(int sixteens) {
    return Choice<KeyRows>{.block = {.query_tiles = 2 * sixteens, .pv_groups = 4},
                           .loop = {.feed = {.stages = 2}},
                           .residency = {.blocks_per_unit = 1}};
  }

  template <class P>
  static constexpr auto warpgroups(int count, int stages, Residency residency) {
    return Choice<Warpgroups>{.block = {.pv_groups = P::kMostDims <= 192 ? 4 : 2},
                              .loop = {.feed = {.row_waves = 4 * count, .stages = stages}},
                              .residency = residency};
  }
};

template <class P, int QueryTiles>
  requires(P::kDimsShared)
struct DecodeCore<MmaSm90, P, QueryTiles> {
  using Type = MmaSm90Keys<typename P::Element>;
};
template <class P>
  requires(P::kDimsShared)
struct PrefillCore<MmaSm90, P> {
  using Type = MmaSm90Keys<typename P::Element>;
};

}  // namespace rocmforge
