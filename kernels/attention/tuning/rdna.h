// SPDX-License-Identifier: Apache-2.0
// RDNA: 256 registers a lane. One tile of rows reads K and V straight into registers, in turn; more rows share tiles
// through shared memory, a tile of rows per wave; of more than 256 dims a part. Heads above 128 leave registers for
// nothing but the output: queries wait in shared memory, and tiles are fetched into one buffer.
#pragma once

#include "../../matrix/dot_gfx11.h"
#include "../../matrix/wmma_gfx11.h"
#include "../../matrix/wmma_gfx12.h"
#include "tuning.h"

namespace rocmforge {

// Operand: elements of an operand.
template <int Operand>
struct RdnaTuning {
  static constexpr int kDirect = Operand == 16 ? 192 : 256;  // longest head whose K or V fits beside the output

  // Waves of few rows. Of narrow heads in the kernel for 256 dims they are more, which hold less of a tile on its way.
  template <class P>
  static constexpr int kFewWaves = P::Format::kNarrow && P::kMostDims > 192 ? 4 : 2;

  template <class P, int QueryTiles>
  static constexpr auto decode() {
    if constexpr (P::kDimsShared) return shared_dims<P, min(QueryTiles, 2)>();
    else if constexpr (QueryTiles == 1 && P::kMostDims <= kDirect) return direct<P>();
    else return staged<P>(max(QueryTiles, kFewWaves<P>), 1);
  }
  template <class P>
  static constexpr auto prefill() {
    if constexpr (P::kDimsShared) return shared_dims<P, 2>();
    else return staged<P>(kStagedDims<P> > 128 ? 4 : 8, kRounds);
  }

 protected:
  template <class P>
  static constexpr auto direct() {
    return Choice<Waves<Direct>>{.block = {},
                                 .loop = {.feed = {.key_waves = 4, .alternate = true},
                                          .shared_query = true,
                                          .lazy_maximum = true,
                                          .most_operands = 2},
                                 .residency = {.blocks_per_unit = 2, .simd_waves = P::kMostDims <= 128 ? 6 : 5}};
  }

 private:
  // Waves share the dims: one has 64 of 512 of the output, 32 registers for each 16 rows, and an eighth or a quarter of
  // the queries.
  template <class P, int QueryTiles>
  static constexpr auto shared_dims() {
    constexpr bool wide = Operand == 16, apart = !P::Format::kValuesInKey;
    return Choice<Waves<Staged>>{
        .block = {.query_tiles = QueryTiles},
        .loop = {.feed = {.row_waves = 1, .one_buffer = true, .ahead = true, .key_pad = 8, .value_pad = 8},
                 .dim_waves = 8,
                 .row_parts = QueryTiles,
                 .lazy_maximum = true,
                 .value_run = wide ? (apart ? 1 : 2) : 4,
                 .most_operands = 2},
        .residency = {.blocks_per_unit = 2}};
  }

  // The dims that registers are short of: short operands leave room for queries that are longer than the output.
  template <class P>
  static constexpr int kStagedDims = Operand == 8 && P::kKeyDims <= 192 ? P::kValueDims : P::kMostDims;

  template <class P>
  static constexpr auto staged(int row_waves, int rounds) {
    constexpr int kDims = kStagedDims<P>;
    constexpr bool wide = Operand == 16, tight = wide || kDims > 128;
    // A tile on its way is kDims / row_waves / 2 registers: 32 at 128 and two waves.
    const bool one_buffer = kDims > 128 || (wide && kDims / row_waves >= 64);
    return Choice<Waves<Staged>>{
        .block = {},
        .loop = {.feed = {.row_waves = row_waves, .one_buffer = one_buffer, .key_pad = 8, .value_pad = 8},
                 .shared_query = kDims > 128,
                 .lazy_maximum = true,
                 .value_run = tight ? 4 : 8,
                 .most_operands = tight ? 2 : 0},
        .residency = {.blocks_per_unit = 2, .rounds = rounds}};
  }
};

// gfx11's operands are twice as long, as both half-waves hold them. Up to four rows are cheaper without the matrix core
// (dot_gfx11.h); then the other decode kernels take 16 rows and 64.
template <>
struct Tuning<WmmaGfx11> : RdnaTuning<16> {
  template <class P>
  static constexpr bool kDots = !P::kDimsShared && P::kKeyDims % 32 == 0 && P::kValueDims % 32 == 0;

  template <class P, int QueryTiles>
  static constexpr auto decode() {
    if constexpr (!kDots<P>) return RdnaTuning::decode<P, QueryTiles>();
    else if constexpr (QueryTiles == 1) return direct<P>();
    else return RdnaTuning::decode<P, QueryTiles == 2 ? 1 : QueryTiles>();
  }
};
template <class P>
  requires(Tuning<WmmaGfx11>::kDots<P>)
struct DecodeCore<WmmaGfx11, P, 1> {
  using Type = DotGfx11<typename P::Element>;
};

template <>
struct Tuning<WmmaGfx12> : RdnaTuning<8> {};

}  // namespace rocmforge
