// SPDX-License-Identifier: Apache-2.0
// How an attention kernel computes its problem: what is traded here is speed against registers and shared memory. A
// choice has one of three loops, and the loop of single waves one of three feeds, each with the fields that it has.
#pragma once

namespace rocmforge {

// Waves read their keys from memory straight into matrix operands (keys/direct.h).
struct Direct {
  int key_waves;           // waves that hold different keys of a tile
  bool alternate = false;  // one register set for K and V
  static constexpr int row_waves = 1;
};
// Tiles go through shared memory (keys/staged.h).
struct Staged {
  int row_waves;            // waves that hold different rows
  bool one_buffer = false;  // filled between tiles, instead of two
  bool ahead = false;       // what fills the one buffer waits in registers while the tile before is worked on
  bool transposed = false;  // values are transposed as they are read (load_transposed)
  int key_pad = 0;          // elements added to a row of K, of V
  int value_pad = 0;
  static constexpr int key_waves = 1;
};
// The same where copies to shared memory are asynchronous: a ring of buffers (keys/ring.h).
struct Ring {
  int row_waves;
  int stages;  // buffers
  int key_pad = 0;
  int value_pad = 0;
  static constexpr int key_waves = 1;
};

// Each wave multiplies for itself (loops/waves.h). Waves that share the dims have the same rows: each accumulates its
// part of the value's dims, and for that they score together, each some keys of a tile and some of these keys' dims.
template <class Feed>
struct Waves {
  Feed feed;
  int dim_waves = 1;          // that share the dims
  static constexpr int dim_group = 1;  // to which a band's dims are dealt before the next band's
  int row_parts = 1;          // that different ones of them score, of the tiles of rows
  int key_parts = 1;          // and of a tile's keys
  bool shared_query = false;  // queries wait in shared memory instead of registers
  bool lazy_maximum = false;  // probabilities first: a tile's maximum is found only if they show it to have risen
  int value_run = 8;          // dims of a value row that a lane reads at once, at most
  int most_operands = 0;      // that the scheduler may have in flight (0: any number), where registers are short
};
// Four waves multiply together, from a ring in shared memory (loops/warpgroup.h).
struct Warpgroups {
  struct Swizzled {
    int row_waves;  // four times the groups
    int stages;
    static constexpr int key_waves = 1;
  } feed;
  static constexpr int dim_waves = 1, dim_group = 1, row_parts = 1, key_parts = 1;
  static constexpr bool lazy_maximum = false;
  static constexpr int value_run = 1;
};

// Two groups of four waves multiply with keys, and dims, on the core's rows (loops/key_rows.h): a group scores half of
// the queries and accumulates half of the dims.
struct KeyRows {
  struct Swizzled {
    int stages;
    static constexpr int row_waves = 1, key_waves = 1;
  } feed;
  static constexpr int dim_waves = 8, dim_group = 4, row_parts = 2, key_parts = 4;
  static constexpr bool lazy_maximum = true;
  static constexpr int value_run = 1;
};

struct Block {
  int query_tiles = 1;  // matrix tiles of rows a wave keeps
  int pv_groups = 1;    // a wave's keys per tile, in units of the second product's depth
};

struct Residency {
  int blocks_per_unit = 2;  // workgroups planned for each compute unit
  int simd_waves = 1;       // a SIMD must have registers for so many (AMD)
  int rounds = 1;           // of heads, at most (schedule/schedule.h), in which long prompts are done
};

template <class LoopChosen>
struct Choice {
  using Loop = LoopChosen;
  Block block;
  LoopChosen loop;
  Residency residency;
};

}  // namespace rocmforge
