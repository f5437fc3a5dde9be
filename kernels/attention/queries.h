// SPDX-License-Identifier: Apache-2.0
// A wave's queries as matrix operands: in the registers of its lanes, or in shared memory where registers are short.
#pragma once

#include "../target/words.h"
#include "geometry.h"
#include "segments.h"

namespace rocmforge {

template <class G>
struct Queries {
  using R = typename G::R;
  using T = typename G::T;
  using D = typename G::D;
  using Shape = typename G::Shape;
  using State = typename G::State;
  static constexpr int kQueryTiles = G::kQueryTiles, kPieces = G::kPieces, kProducts = G::kProducts;
  using Operand = typename R::QueryOperand;

  struct Empty {};
  struct InRegisters {
    Words<T, R::kQueryElements> operand[kQueryTiles][kProducts];
  };
  struct InSharedMemory {
    Words<T, R::kQueryElements> operand[Shape::kRowWaves][kQueryTiles][kProducts][R::kQueryLanes];
  };
  using Held = SelectType<Shape::kSharedQuery, Empty, InRegisters>;       // of one lane
  using Shared = SelectType<Shape::kSharedQuery, InSharedMemory, Empty>;  // of all

  // Reads the rows' queries, and empties the state for them.
  RF_DEVICE static void load(const AttentionArgs& args, const Segment& seg, Shared& shared, Held& held, State& state) {
    const T* const queries = static_cast<const T*>(args.query);
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      const T* source[R::kStats];
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        const int row = seg.first_row + G::lane_row(t, s);
        const bool valid = row < seg.rows;
        // A row past the end reads another's query: its result is never written.
        const Quotient at = split_row(args, valid ? row : seg.first_row);
        state.last_key[t][s] = valid ? seg.tokens_before + at.quotient : -1;
        source[s] = queries + (seg.token_start + at.quotient) * args.query_token_stride +
                    query_head(args, seg, at) * args.query_head_stride;
      }
      if constexpr (R::kQueryLanes == 1) {
        if (G::key_wave() == 0) share_pieces(source, shared, t);
      } else {
        Operand operand[kProducts];
        if constexpr (!Shape::kWarpgroup)
          unrolled<R::kStats>([&](auto s) { load_pieces<s>(source[s], operand); });
        if constexpr (Shape::kWarpgroup) load_in_order(source, held);
        RF_UNROLL
        for (int i = 0; i < kProducts && !Shape::kWarpgroup; ++i) {
          if constexpr (!Shape::kSharedQuery) held.operand[t][i] = words_of(operand[i]);
          else if (G::key_wave() == 0) shared_words(shared, t, i) = words_of(operand[i]);
        }
      }
      RF_UNROLL
      for (int n = 0; n < D::kTiles; ++n) state.out[t][n] = fill<float, R::kScores>(0.0f);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) state.row[t][s] = kNoKeys;
    }
    if constexpr (Shape::kSharedQuery && Shape::kKeyWaves > 1) barrier();
  }

  // The operand of query tile t for product i along the dims.
  RF_DEVICE static Operand operand(Shared& shared, const Held& held, int t, int i) {
    if constexpr (Shape::kSharedQuery) return vector_at<Operand>(shared_words(shared, t, i));
    else return vector_at<Operand>(held.operand[t][i]);
  }

 private:
  RF_DEVICE static auto& shared_words(Shared& shared, int t, int i) {
    return shared.operand[G::row_wave()][t][i][lane<R::kWave>() % R::kQueryLanes];
  }

  // The elements of statistic S's row, with the contraction's slots named as in roles.h. Which go where is for the
  // compiler to work out: left in loops, each load was waited for before the next.
  template <int S>
  RF_DEVICE static void load_pieces(const T* row, Operand (&operand)[kProducts]) {
    unrolled<kPieces>([&](auto p) {
      const int dim = (p * R::kGroups + R::group(lane<R::kWave>())) * R::kPiece;
      const bool inside = G::kHeadSize % R::kPieceDims == 0 || dim < G::kHeadSize;
      const auto piece = inside ? load_vec<T, R::kPiece>(row + dim) : fill<T, R::kPiece>(T{});
      unrolled<R::kSteps * R::kQueryElements>([&](auto i) {
        constexpr int kStep = i / R::kQueryElements, kElement = i % R::kQueryElements;
        if constexpr (query_stat(kElement) == S)
          operand[p * R::kSteps + kStep][kElement] = piece[kStep * R::kKeyElements + R::query_element(kElement)];
      });
    });
  }

  // All rows' elements, with the slots in the order of the dims, as the keys lie in shared memory.
  RF_DEVICE static void load_in_order(const T* const (&row)[R::kStats], Held& held) {
    constexpr int kPair = 4 / sizeof(T);
    unrolled<kProducts>([&](auto i) {
      unrolled<R::kQueryElements / kPair>([&](auto word) {
        constexpr int kElement = word * kPair;
        held.operand[0][i].word[word] =
            load_words<T, kPair>(row[query_stat(kElement)] + i * G::Mma::kK + G::Mma::a_k(lane<R::kWave>(), kElement))
                .word[0];
      });
    });
  }

  // Operands that are the same for all lanes: each lane brings one piece of all rows.
  RF_DEVICE static void share_pieces(const T* const (&row)[R::kStats], Shared& shared, int t) {
    static_assert(Shape::kSharedQuery && R::kSteps == 1 && G::kHeadSize % R::kPiece == 0 && kPieces <= R::kWave);
    const int piece = lane<R::kWave>();
    if (piece >= kPieces) return;
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      const auto words = load_words<T, R::kPiece>(row[s] + piece * R::kPiece);
      RF_UNROLL
      for (int i = 0; i < words.kCount; ++i)
        shared.operand[G::row_wave()][t][piece][0].word[s * words.kCount + i] = words.word[i];
    }
  }

  // Which of a lane's rows element i of its query operand belongs to.
  RF_DEVICE static constexpr int query_stat(int i) {
    int s = 0;
    while (R::stat_query(0, s) != R::operand_query(0, i)) ++s;
    return s;
  }
};

}  // namespace rocmforge
