// SPDX-License-Identifier: Apache-2.0
// Shapes of the attention kernels per matrix core: the one place where speed is traded against registers and shared
// memory. The resource table in the README shows what each choice costs.
#pragma once

#include "../matrix/select.h"
#include "schedule_words.h"

namespace rocmforge {

struct ShapeChoice {
  int query_tiles = 1;       // matrix tiles of rows a wave keeps
  int row_waves = 1;         // waves that hold different rows
  int key_waves = 1;         // waves that hold different keys of a tile
  int pv_groups = 1;         // a wave's keys per tile, in units of the second product's depth
  bool staged = false;       // tiles go through shared memory
  int stages = 0;            // buffers of staged tiles where copies are asynchronous (keys_ring.h)
  bool alternate = false;    // one register set for K and V (keys_direct.h)
  bool late = false;         // staged tiles are fetched between tiles, into the only buffer
  bool shared_query = false; // queries wait in shared memory instead of registers
  bool warpgroup = false;    // four waves multiply together, from shared memory (keys_warpgroup.h)
  bool transposed = false;   // staged values are transposed as they are read (load_transposed); takes run = 1
  int key_pad = 0;           // elements added to a staged row of K, of V
  int value_pad = 0;
  int blocks_per_unit = 2;   // workgroups planned for each compute unit
  int rounds = 1;            // of heads, at most (schedule.h), in which long prompts are done
  bool guess = false;        // probabilities first: a tile's maximum is found only if they show it to have risen
  int waves = 1;             // a SIMD must have registers for so many (AMD)
  int run = 8;               // dims of a value row that a lane reads at once, at most
  int fence = 0;             // operands the scheduler may have in flight (0: any number), where registers are short
};

template <ShapeChoice Choice>
struct Shape {
  static constexpr int kQueryTiles = Choice.query_tiles, kRowWaves = Choice.row_waves, kKeyWaves = Choice.key_waves;
  static constexpr int kPvGroups = Choice.pv_groups;
  static constexpr bool kStaged = Choice.staged, kAlternate = Choice.alternate, kSharedQuery = Choice.shared_query;
  static constexpr int kStages = Choice.stages;
  static constexpr bool kWarpgroup = Choice.warpgroup;
  static constexpr bool kTransposed = Choice.transposed;
  static constexpr int kKeyPad = Choice.key_pad, kValuePad = Choice.value_pad;
  static constexpr int kBlocksPerUnit = Choice.blocks_per_unit, kWavesPerUnit = Choice.waves;
  static constexpr int kRounds = Choice.rounds;
  static_assert(kRounds <= kMostRounds);
  static constexpr bool kGuess = Choice.guess;
  static constexpr int kRun = Choice.run, kFence = Choice.fence;
  static constexpr bool kLate = Choice.late;
};

// Decode for up to `query_tiles` tiles of rows; prefill for prompts.
template <template <class> class Mma>
struct Tuning;

// Rounds of heads: each takes memory for partial results (25 MB on an H200). Where there are several dies, each of them
// has heads of its own already (share_of).
inline constexpr int kRounds = kDies > 1 && !kHostTarget ? 1 : kMostRounds;

// CDNA: 512 registers a lane at one wave per SIMD, 256 at two. Depth: keys of a second product.
template <int Depth>
struct CdnaTuning {
  static constexpr ShapeChoice decode(int query_tiles, int head_size) {
    const bool small = query_tiles == 1 && head_size <= 128;
    // K, V, queries and output of a wave, together, would pass 512 registers.
    const bool large = query_tiles * head_size > (Depth == 16 ? 512 : 256);
    return {.query_tiles = query_tiles, .key_waves = 4, .pv_groups = Depth == 16 && small ? 2 : 1, .alternate = large,
            .shared_query = large, .guess = true, .waves = small ? 2 : 1};
  }
  // Eight waves are two per SIMD. Rows are padded by 16 bytes: the 16 lanes that read one column of 16 rows then start
  // in different banks. gfx950 transposes values as it reads them, 32 byte permutations a tile fewer: 64 lanes read 32
  // bytes each of 16 rows, which 32 bytes of padding deal to all banks.
  static constexpr ShapeChoice prefill(int head_size) {
    return {.query_tiles = head_size <= 128 ? 2 : 1, .row_waves = 8,
            .pv_groups = Depth == 16 && head_size <= 128 ? 2 : 1, .staged = true, .transposed = Depth == 32,
            .key_pad = 8, .value_pad = Depth == 32 ? 16 : 8, .blocks_per_unit = 1, .rounds = kRounds, .guess = true,
            .waves = 2, .run = Depth == 32 ? 1 : 8};
  }
};
template <>
struct Tuning<Mfma16x16x16> : CdnaTuning<16> {};
template <>
struct Tuning<Mfma16x16x32> : CdnaTuning<32> {};

// 32 rows per tile: prefill only, as decode rarely fills them.
struct WideTuning {
  static constexpr ShapeChoice prefill(int) {
    return {.row_waves = 4, .staged = true, .key_pad = 8, .value_pad = 8, .blocks_per_unit = 1, .rounds = kRounds,
            .guess = true};
  }
};
template <>
struct Tuning<Mfma32x32x8> : WideTuning {};
template <>
struct Tuning<Mfma32x32x16> : WideTuning {};

// RDNA: 256 registers a lane. One tile of rows reads K and V straight into registers, in turn; more rows share tiles
// through shared memory, a tile of rows per wave. Heads above 128 leave registers for nothing but the output: queries
// wait in shared memory, and tiles are fetched late. Operand: elements of an operand.
template <int Operand>
struct RdnaTuning {
  static constexpr int kDirect = Operand == 16 ? 192 : 256;  // longest head whose K or V fits beside the output
  static constexpr ShapeChoice decode(int query_tiles, int head_size) {
    if (query_tiles == 1 && head_size <= kDirect) return direct(head_size);
    return staged(max(query_tiles, 2), head_size);
  }
  static constexpr ShapeChoice prefill(int head_size) {
    ShapeChoice choice = staged(head_size > 128 ? 4 : 8, head_size);
    choice.rounds = kRounds;
    return choice;
  }

 protected:
  static constexpr ShapeChoice direct(int head_size) {
    return {.key_waves = 4, .alternate = true, .shared_query = true, .guess = true,
            .waves = head_size <= 128 ? 6 : 5, .fence = 2};
  }

 private:
  static constexpr ShapeChoice staged(int row_waves, int head_size) {
    const bool wide = Operand == 16, tight = wide || head_size > 128;
    // A tile on its way is head_size / row_waves / 2 registers: 32 at 128 and two waves.
    const bool late = head_size > 128 || (wide && head_size / row_waves >= 64);
    return {.row_waves = row_waves, .staged = true, .late = late, .shared_query = head_size > 128, .key_pad = 8,
            .value_pad = 8, .blocks_per_unit = 2, .guess = true, .run = tight ? 4 : 8, .fence = tight ? 2 : 0};
  }
};
// gfx11's operands are twice as long, as both half-waves hold them. Up to four rows are cheaper without the matrix core
// (dot_gfx11.h); then the other decode kernels take 16 rows and 64.
template <>
struct Tuning<WmmaGfx11> : RdnaTuning<16> {
  static constexpr bool dots(int head_size) { return head_size % 32 == 0; }
  static constexpr ShapeChoice decode(int query_tiles, int head_size) {
    if (!dots(head_size)) return RdnaTuning::decode(query_tiles, head_size);
    if (query_tiles == 1) return direct(head_size);
    return RdnaTuning::decode(query_tiles == 2 ? 1 : query_tiles, head_size);
  }
};
template <>
struct Tuning<WmmaGfx12> : RdnaTuning<8> {};

// The core of a decode kernel.
template <template <class> class Mma, int QueryTiles, int HeadSize>
struct DecodeCore {
  template <class T>
  using Type = Mma<T>;
};
template <int HeadSize>
  requires(Tuning<WmmaGfx11>::dots(HeadSize))
struct DecodeCore<WmmaGfx11, 1, HeadSize> {
  template <class T>
  using Type = DotGfx11<T>;
};

// NVIDIA: 255 registers a thread. More than one tile of rows: as many waves, which share the keys. K's rows are padded
// to odd multiples of 64 bytes and V's by 16 bytes, for a quarter-warp reads two rows of K (64 bytes of each) but four
// rows of V, each the second after the last (32 bytes of each).
template <>
struct Tuning<MmaSm80> {
  static constexpr ShapeChoice decode(int query_tiles, int head_size) {
    if (query_tiles > 1)
      return {.row_waves = query_tiles, .pv_groups = head_size <= 128 ? 2 : 1, .staged = true, .stages = 3,
              .shared_query = head_size > 64, .key_pad = key_pad(head_size), .value_pad = 8,
              .blocks_per_unit = head_size < 128 ? 4 : head_size == 128 ? 3 : 2};
    return {.key_waves = 4, .alternate = head_size > 128, .shared_query = head_size > 128,
            .blocks_per_unit = head_size <= 80 ? 3 : 2};
  }
  static constexpr ShapeChoice prefill(int head_size) {
    const bool wide = head_size > 128;
    return {.query_tiles = wide ? 1 : 2, .row_waves = wide ? 8 : 4, .pv_groups = 2, .staged = true,
            .stages = wide ? 2 : 3, .shared_query = true, .key_pad = key_pad(head_size), .value_pad = 8,
            .blocks_per_unit = wide ? 1 : 2, .rounds = kRounds};
  }
  static constexpr int key_pad(int head_size) { return (96 - head_size % 64) % 64; }
};

// sm_90: from 33 rows on, 64 rows of a warpgroup multiply 64 keys straight from shared memory (32 keys at 256 dims, for
// registers). Prefill has as many groups as registers allow: one's softmax hides behind the others' products.
template <>
struct Tuning<MmaSm90> {
  static constexpr ShapeChoice decode(int query_tiles, int head_size) {
    if (query_tiles < 4) return Tuning<MmaSm80>::decode(query_tiles, head_size);
    return warpgroups(head_size, 1, 3, head_size <= 64 ? 4 : 2, 1);
  }
  static constexpr ShapeChoice prefill(int head_size) {
    return head_size <= 64    ? warpgroups(head_size, 4, 6, 1, kRounds)
           : head_size <= 128 ? warpgroups(head_size, 3, 6, 1, kRounds)
           : head_size <= 192 ? warpgroups(head_size, 2, 4, 1, kRounds)
                              : warpgroups(head_size, 2, 6, 1, kRounds);
  }
  static constexpr ShapeChoice warpgroups(int head_size, int count, int stages, int blocks_per_unit, int rounds) {
    return {.row_waves = 4 * count, .pv_groups = head_size <= 192 ? 4 : 2, .staged = true, .stages = stages,
            .warpgroup = true, .blocks_per_unit = blocks_per_unit, .rounds = rounds, .run = 1};
  }
};

}  // namespace rocmforge
