// SPDX-License-Identifier: Apache-2.0
// CDNA: 512 registers a lane at one wave per SIMD, 256 at two.
#pragma once

#include "../../matrix/mfma_16x16x16.h"
#include "../../matrix/mfma_16x16x32.h"
#include "../../matrix/mfma_32x32x16.h"
#include "../../matrix/mfma_32x32x8.h"
#include "tuning.h"

namespace rocmforge {

// Depth: keys of a second product.
template <int Depth>
struct CdnaTuning {
  template <class P, int QueryTiles>
  static constexpr auto decode() {
    if constexpr (P::kDimsShared) return shared_dims<P, QueryTiles>();
    else return direct<P, min(QueryTiles, kMostTiles<P>)>();
  }

  // Tiles of rows beside two sets of keys of gfx950's 32 tokens, where 512 registers do not hold four.
  template <class P>
  static constexpr int kMostTiles = Depth == 32 && P::Format::kNarrow && P::kMostDims > 192 ? 3 : 4;

  template <class P, int QueryTiles>
  static constexpr auto direct() {
    constexpr bool small = QueryTiles == 1 && P::kMostDims <= 128;
    // K, V, queries and output of a wave, together, would pass 512 registers.
    constexpr bool large = QueryTiles * P::kMostDims > (Depth == 16 ? 512 : 256);
    return Choice<Waves<Direct>>{
        .block = {.query_tiles = QueryTiles, .pv_groups = Depth == 16 && small ? 2 : 1},
        .loop = {.feed = {.key_waves = 4, .alternate = large}, .shared_query = large, .lazy_maximum = true},
        .residency = {.blocks_per_unit = 2, .simd_waves = small ? 2 : 1}};
  }

  // Waves share the dims. 32 latents are 37 kB of shared memory, so one workgroup of four waves is alone on a unit,
  // with 512 registers a lane, but on gfx950, which has room for two. A wave's queries, 128 dims of the output and the
  // keys on their way are 36, 32 and 36 registers for 16 rows. Where values lie apart, 16 keys take as much.
  template <class P, int QueryTiles>
  static constexpr auto shared_dims() {
    constexpr bool apart = !P::Format::kValuesInKey, two = Depth == 32 && QueryTiles <= (apart ? 1 : 2);
    return Choice<Waves<Staged>>{.block = {.query_tiles = QueryTiles, .pv_groups = Depth == 16 && !apart ? 2 : 1},
                                 .loop = {.feed = {.row_waves = 1,
                                                   .one_buffer = true,
                                                   .ahead = true,
                                                   .transposed = Depth == 32,
                                                   .key_pad = pad(P::kKeyDims),
                                                   .value_pad = Depth == 32 ? 16 : pad(P::kValueDims)},
                                          .dim_waves = 4,
                                          .key_parts = Depth == 16 && apart ? 1 : 2,
                                          .lazy_maximum = true,
                                          .value_run = Depth == 32 ? 1 : 8},
                                 .residency = {.blocks_per_unit = two ? 2 : 1, .simd_waves = two ? 2 : 1}};
  }

  // Rows that are an odd multiple of 32 bytes long. The hardware takes 16-byte reads of eight lanes at a time: of each
  // 32 lanes 0-3 with 20-23 and so on, which read one column of four rows and another one of the next four. So the four
  // rows lie two places of 16 bytes apart, and the others fill what is left between.
  static constexpr int pad(int dims) { return ((dims + 15) / 16 | 1) * 16 - dims; }

  template <class P>
  static constexpr auto prefill() {
    if constexpr (P::kDimsShared) return shared_dims<P, 4>();
    else return staged<P>();
  }

  // Eight waves are two per SIMD. gfx950 transposes values as it reads them, 32 byte permutations a tile fewer: 64
  // lanes read 32 bytes each of 16 rows, which 32 bytes of padding deal to all banks.
  template <class P>
  static constexpr auto staged() {
    constexpr bool narrow = P::kValueDims <= 128 && P::kKeyDims <= 192, transposed = Depth == 32;
    return Choice<Waves<Staged>>{.block = {.query_tiles = narrow ? 2 : 1, .pv_groups = Depth == 16 && narrow ? 2 : 1},
                                 .loop = {.feed = {.row_waves = 8,
                                                   .transposed = transposed,
                                                   .key_pad = pad(P::kKeyDims),
                                                   .value_pad = transposed ? 16 : pad(P::kValueDims)},
                                          .lazy_maximum = true,
                                          .value_run = transposed ? 1 : 8},
                                 .residency = {.blocks_per_unit = 1, .simd_waves = 2, .rounds = kRounds}};
  }
};
template <>
struct Tuning<Mfma16x16x16> : CdnaTuning<16> {};
template <>
struct Tuning<Mfma16x16x32> : CdnaTuning<32> {};

// 32 rows per tile: prefill only, as decode rarely fills them.
struct WideTuning {
  template <class>
  static constexpr auto prefill() {
    return Choice<Waves<Staged>>{.block = {},
                                 .loop = {.feed = {.row_waves = 4, .key_pad = 8, .value_pad = 8}, .lazy_maximum = true},
                                 .residency = {.blocks_per_unit = 1, .rounds = kRounds}};
  }
};
template <>
struct Tuning<Mfma32x32x8> : WideTuning {};
template <>
struct Tuning<Mfma32x32x16> : WideTuning {};

}  // namespace rocmforge
