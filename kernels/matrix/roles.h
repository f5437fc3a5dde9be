// SPDX-License-Identifier: Apache-2.0
// A matrix core seen by attention: queries, keys, values, scores and output, whichever of A and B they land on.
//
//   scores  S = K Q^T  over the head's dims        one tile: kRows queries x kKeys keys, kScores registers a lane
//   output  O = V^T P  over keys                   one tile: kRows queries x kDims dims, kScores registers a lane
//
// Two relabellings make every memory access of a lane contiguous and leave the products unchanged:
//   - the order of a contraction's slots is free if both operands agree, so a lane's key operand holds kPiece
//     consecutive dims (16 bytes or more), which feed kSteps products;
//   - the output's dims may be numbered at will, so a lane takes up to 8 consecutive dims of a value row and uses
//     element j in output tile j (dims.h).
#pragma once

#include "../target/words.h"
#include "mma.h"

namespace rocmforge {

template <class Mma>
struct Roles {
  using Core = Mma;
  using T = typename Mma::Element;
  static constexpr int kWave = Mma::kWave;
  static constexpr int kRows = Mma::kKeysOnRows ? Mma::kN : Mma::kM;
  static constexpr int kKeys = Mma::kKeysOnRows ? Mma::kM : Mma::kN;
  static constexpr int kDims = kKeys;
  static constexpr int kScores = Mma::kC;
  static constexpr int kStats = Mma::kStats;

  static constexpr int kKeyElements = Mma::kKeysOnRows ? Mma::kA : Mma::kB;
  static constexpr int kQueryElements = Mma::kKeysOnRows ? Mma::kB : Mma::kA;
  using KeyOperand = Vec<T, kKeyElements>;
  using QueryOperand = Vec<T, kQueryElements>;
  using Tile = Vec<float, kScores>;

  static constexpr int kQueryLanes = Mma::kK * kRows / kQueryElements;  // lanes that hold different query operands
  static constexpr int kGroups = Mma::kK / kKeyElements;  // lanes that share a key's dims
  static constexpr int kPiece = kKeyElements < 8 ? 8 : kKeyElements;
  static constexpr int kSteps = kPiece / kKeyElements;    // products fed by one piece
  static constexpr int kPieceDims = kPiece * kGroups;     // dims covered by one piece of every lane

  // Lane l's score register r belongs to this query and key of its tile, and its output register to this query and dim.
  RF_DEVICE static constexpr int query(int l, int r) { return Mma::kKeysOnRows ? Mma::c_col(l, r) : Mma::c_row(l, r); }
  RF_DEVICE static constexpr int key(int l, int r) { return Mma::kKeysOnRows ? Mma::c_row(l, r) : Mma::c_col(l, r); }
  RF_DEVICE static constexpr int stat(int r) { return Mma::stat(r); }
  // The query that statistic s of lane l describes.
  RF_DEVICE static constexpr int stat_query(int l, int s) { return query(l, s * kScores / kStats); }

  // Registers 0, 1, ... that hold consecutive keys (or dims) of one query; the others do in runs of as many.
  static constexpr int kRunRegisters = [] {
    int run = 1;
    while (run < kScores && query(0, run) == query(0, 0) && key(0, run) == key(0, 0) + run) ++run;
    return run;
  }();

  // Lanes that share a query's dims in an output tile, if they are four and each holds consecutive ones; else 1. (Of
  // two, as on gfx12, dims.h could make less, and it costs registers, of which some kernels there have none left.)
  static constexpr int kHolders = kRunRegisters == kScores && kDims == 4 * kScores ? 4 : 1;

  // Row of a key operand (a key) or of a value operand (a dim's number within its tile).
  RF_DEVICE static constexpr int operand_row(int l) { return Mma::kKeysOnRows ? Mma::a_row(l, 0) : Mma::b_col(l, 0); }
  // Query that element i of a query operand belongs to.
  RF_DEVICE static constexpr int operand_query(int l, int i) {
    return Mma::kKeysOnRows ? Mma::b_col(l, i) : Mma::a_row(l, i);
  }
  RF_DEVICE static constexpr int group(int l) { return Mma::k_group(l); }
  // Element i of a query operand and element query_element(i) of a key operand meet in the product.
  RF_DEVICE static constexpr int query_element(int i) { return Mma::query_element(i); }

  static constexpr bool kGathered = requires { Mma::kGathered; };
  // kPvTiles score tiles, taken in order, are kPvOperands operands of the second product, covering kPvKeys keys.
  static constexpr int kRegistersPerOperand = kGathered            ? kScores * Mma::kK / kKeys
                                              : Mma::kHalfExchange ? kQueryElements / 2
                                                                   : kQueryElements;
  static constexpr int kPvTiles = kRegistersPerOperand > kScores ? kRegistersPerOperand / kScores : 1;
  static constexpr int kPvOperands = kPvTiles * kScores / kRegistersPerOperand;
  static constexpr int kPvKeys = kPvTiles * kKeys;

  // Key that element E of value operand Op must hold in lane l, counted from the first of the kPvKeys keys.
  template <int Op, int E>
  RF_DEVICE static constexpr int value_key(int l) {
    if constexpr (Mma::kHalfExchange) {
      return E < 8 ? 2 * E : 2 * (E - 8) + 1;
    } else if constexpr (kGathered) {
      return Op * kKeyElements + E;
    } else {
      constexpr int r = Op * kQueryElements + slot_of(E);
      return r / kScores * kKeys + key(l, r % kScores);
    }
  }

  // A piece of a key's dims as the operands it feeds.
  RF_DEVICE static void split(const Words<T, kPiece>& piece, KeyOperand* out) {
    RF_UNROLL
    for (int s = 0; s < kSteps; ++s) out[s] = vector_at<KeyOperand>(piece, s * Words<T, kKeyElements>::kCount);
  }

  template <int Count>
  RF_DEVICE static void score(Tile& s, const KeyOperand* k, const QueryOperand* q) {
    if constexpr (Mma::kKeysOnRows) products<Mma, Count, 0, 1, 1>(&s, k, q);
    else products<Mma, Count, 0, 1, 1>(&s, q, k);
  }

  template <int Count>
  RF_DEVICE static void accumulate(Tile* out, const KeyOperand* v, const QueryOperand& p) {
    if constexpr (Mma::kKeysOnRows) products<Mma, Count, 1, 1, 0>(out, v, &p);
    else products<Mma, Count, 1, 0, 1>(out, &p, v);
  }

  // Probabilities, already in registers, as operand `op` of the second product: a cast, and on gfx11 a swap of halves.
  RF_DEVICE static QueryOperand probabilities(const Tile* tiles, int op) {
    if constexpr (Mma::kHalfExchange) {
      static_assert(kScores == 8 && kWave == 32);
      const bool upper = lane<kWave>() >= 16;
      const Words<T, 8> mine = pack<8>(tiles, 0);
      Words<T, 16> out;
      RF_UNROLL
      for (int i = 0; i < mine.kCount; ++i) {
        const uint32_t other = shuffle_xor<kWave, 16>(mine.word[i]);
        out.word[i] = upper ? other : mine.word[i];
        out.word[mine.kCount + i] = upper ? mine.word[i] : other;
      }
      return vector_at<QueryOperand>(out);
    } else if constexpr (kGathered) {
      // Lanes are keys: pairs of neighbours make words, which go to all lanes.
      static_assert(sizeof(T) == 2);
      Words<T, kQueryElements> out;
      RF_UNROLL
      for (int r = 0; r < kScores; ++r) {
        const float mine = tiles[0][r];
        const uint32_t pair = pack2_near<T>(mine, shuffle_xor<kWave, 1>(mine));
        RF_UNROLL
        for (int i = 0; i < Mma::kK / 2; ++i)
          out.word[r * Mma::kK / 2 + i] = broadcast<kWave>(pair, op * Mma::kK + 2 * i);
      }
      return vector_at<QueryOperand>(out);
    } else {
      return vector_at<QueryOperand>(pack<kQueryElements>(tiles, op * kQueryElements));
    }
  }

  // Whether lanes l and l ^ mask hold scores of the same queries, for all l.
  static constexpr bool shares_query(int mask) {
    for (int l = 0; l < kWave; ++l)
      for (int r = 0; r < kScores; ++r)
        if (query(l, r) != query(l ^ mask, r)) return false;
    return true;
  }

  // Combines a per-lane statistic over all lanes that hold the same query.
  template <int Mask = 1, class Op>
  RF_DEVICE static float reduce(float value, Op op) {
    if constexpr (Mask < kWave) {
      if constexpr (shares_query(Mask)) value = op(value, shuffle_xor<kWave, Mask>(value));
      return reduce<Mask * 2>(value, op);
    } else {
      return value;
    }
  }

 private:
  // First element of a query operand that meets element e of a key operand.
  static constexpr int slot_of(int e) {
    int slot = 0;
    while (query_element(slot) != e) ++slot;
    return slot;
  }

  // N probabilities from a lane's score register `first` on, as storage elements.
  template <int N>
  RF_DEVICE static Words<T, N> pack(const Tile* tiles, int first) {
    const auto at = [&](int r) { return tiles[r / kScores][r % kScores]; };
    Words<T, N> out;
    RF_UNROLL
    for (int i = 0; i < out.kCount; ++i) {
      if constexpr (sizeof(T) == 4) out.word[i] = float_to_bits(at(first + i));
      else out.word[i] = pack2_near<T>(at(first + 2 * i), at(first + 2 * i + 1));
    }
    return out;
  }
};

}  // namespace rocmforge
