// SPDX-License-Identifier: Apache-2.0
// A wave's queries as matrix operands: in the registers of its lanes, or in shared memory where registers are short.
#pragma once

#include "../../target/unrolled.h"
#include "../../target/words.h"
#include "../geometry.h"
#include "../schedule/segments.h"

namespace rocmforge {

// Where a row's query lies.
template <class G>
struct QueryRow {
  using T = typename G::T;
  static constexpr int kPart = G::Format::kQueryPart;
  const T* data;
  const T* rest;  // of dims from kPart on
  int dims;       // where the format is narrow

  RF_DEVICE QueryRow() {}
  RF_DEVICE QueryRow(const AttentionArgs& args, const Segment& seg, Quotient at) {
    const QueryRows& rows = args.query;
    const int64_t token = seg.context.first_token + at.quotient, head = query_head(args.heads, seg.head, at);
    data = static_cast<const T*>(rows.data) + token * rows.token_stride + head * rows.head_stride;
    if constexpr (G::Format::kNarrow) dims = args.keys.dims;
    if constexpr (kPart < G::Problem::kKeyDims)
      rest = static_cast<const T*>(rows.rest) + token * rows.rest_token_stride + head * rows.rest_head_stride - kPart;
  }
  // A run of dims that lies in one part.
  RF_DEVICE const T* at(int dim) const {
    if constexpr (kPart < G::Problem::kKeyDims) return (dim < kPart ? data : rest) + dim;
    else return data + dim;
  }
  // N dims of one part; zero where a narrow head has none.
  template <int N>
  RF_DEVICE Words<T, N> words(int dim) const {
    if constexpr (!G::Format::kNarrow) {
      return load_words<T, N>(at(dim));
    } else {
      constexpr int kStep = min(N, kNarrowStep);
      Words<T, N> all;
      unrolled<N / kStep>([&](auto i) {
        const int from = dim + i * kStep;
        const auto step = load_words<T, kStep>(data + min(from, dims - kStep));
        RF_UNROLL
        for (int w = 0; w < step.kCount; ++w) all.word[i * step.kCount + w] = from < dims ? step.word[w] : 0;
      });
      return all;
    }
  }
};

// Reads the rows' queries, and empties the state for them. Operands says where a query tile goes: it has Held, of one
// lane, Shared, of all, and bring(each statistic's row, shared, held, query tile).
template <class G, class Operands>
RF_DEVICE void load_queries(const AttentionArgs& args, const Segment& seg, typename Operands::Shared& shared,
                            typename Operands::Held& held, typename G::State& state) {
  using R = typename G::R;
  RF_UNROLL
  for (int t = 0; t < G::kQueryTiles; ++t) {
    QueryRow<G> source[R::kStats];
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      const int row = seg.first_row + G::lane_row(t, s);
      // A row past the end repeats another: its result is never written.
      const Quotient at = split_row(args.heads, row < seg.rows ? row : seg.first_row);
      state.token[t][s] = at.quotient;
      source[s] = QueryRow<G>(args, seg, at);
      state.score[t][s] = G::Score::row(args.softmax, static_cast<int>(query_head(args.heads, seg.head, at)),
                                        seg.context.before + at.quotient);
    }
    if constexpr (G::kRowParts == 1) Operands::bring(source, shared, held, t);
    RF_UNROLL
    for (int n = 0; n < G::D::kTiles; ++n) state.out[t][n] = fill<float, R::kScores>(0.0f);
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) state.row[t][s] = kNoKeys;
  }
  if constexpr (G::kRowParts > 1) {
    RF_UNROLL
    for (int t = 0; t < G::kOwnQueryTiles; ++t) {
      QueryRow<G> source[R::kStats];
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        const int row = seg.first_row + G::lane_row(G::row_part() * G::kOwnQueryTiles + t, s);
        source[s] = QueryRow<G>(args, seg, split_row(args.heads, row < seg.rows ? row : seg.first_row));
      }
      Operands::bring(source, shared, held, t);
    }
  }
}

// Which of a lane's rows element i of its query operand belongs to.
template <class R>
RF_DEVICE constexpr int query_stat(int i) {
  int s = 0;
  while (R::stat_query(0, s) != R::operand_query(0, i)) ++s;
  return s;
}

// Operands for the loop of single waves, with the contraction's slots named as in roles.h.
template <class G>
struct PieceQueries {
  using R = typename G::R;
  using T = typename G::T;
  using Operand = typename R::QueryOperand;
  static constexpr int kPieces = G::kPieces, kProducts = kPieces * R::kSteps;  // along the dims
  static constexpr bool kInSharedMemory = G::kLoop.shared_query;

  struct Empty {};
  struct InRegisters {
    Words<T, R::kQueryElements> operand[G::kOwnQueryTiles][kProducts];
  };
  // An operand lies in parts of 16 bytes, each of all lanes before the next, so that lanes read from all banks.
  static constexpr int kPart = min(R::kQueryElements, static_cast<int>(16 / sizeof(T)));
  static constexpr int kParts = R::kQueryElements / kPart;
  using Part = Words<T, kPart>;
  struct InSharedMemory {
    Part part[G::kRowWaves][G::kQueryTiles][kProducts][kParts][R::kQueryLanes];
  };
  using Held = SelectType<kInSharedMemory, Empty, InRegisters>;
  using Shared = SelectType<kInSharedMemory, InSharedMemory, Empty>;

  RF_DEVICE static void load(const AttentionArgs& args, const Segment& seg, Shared& shared, Held& held,
                             typename G::State& state) {
    load_queries<G, PieceQueries>(args, seg, shared, held, state);
    if constexpr (kInSharedMemory && G::kKeyWaves > 1) barrier();
  }

  RF_DEVICE static void bring(const QueryRow<G> (&source)[R::kStats], Shared& shared, Held& held, int t) {
    if constexpr (R::kQueryLanes == 1) {
      if (G::key_wave() == 0) share_pieces(source, shared, t);
    } else {
      Operand operand[kProducts];
      unrolled<R::kStats>([&](auto s) { load_pieces<s>(source[s], operand); });
      RF_UNROLL
      for (int i = 0; i < kProducts; ++i) {
        if constexpr (!kInSharedMemory) held.operand[t][i] = words_of(operand[i]);
        else if (G::key_wave() == 0) share(shared, t, i, words_of(operand[i]));
      }
    }
  }

  // The operand of query tile t for product i along the dims.
  RF_DEVICE static Operand operand(Shared& shared, const Held& held, int t, int i) {
    if constexpr (kInSharedMemory) return vector_at<Operand>(shared_words(shared, t, i));
    else return vector_at<Operand>(held.operand[t][i]);
  }

 private:
  RF_DEVICE static Words<T, R::kQueryElements> shared_words(const Shared& shared, int t, int i) {
    Words<T, R::kQueryElements> all;
    unrolled<kParts>([&](auto p) {
      const Part part = shared.part[G::row_wave()][t][i][p][lane<R::kWave>() % R::kQueryLanes];
      unrolled<Part::kCount>([&](auto w) { all.word[p * Part::kCount + w] = part.word[w]; });
    });
    return all;
  }

  RF_DEVICE static void share(Shared& shared, int t, int i, const Words<T, R::kQueryElements>& all) {
    unrolled<kParts>([&](auto p) {
      Part part;
      unrolled<Part::kCount>([&](auto w) { part.word[w] = all.word[p * Part::kCount + w]; });
      shared.part[G::row_wave()][t][i][p][lane<R::kWave>() % R::kQueryLanes] = part;
    });
  }

  // The elements of statistic S's row. Which go where is for the compiler to work out: left in loops, each load was
  // waited for before the next.
  template <int S>
  RF_DEVICE static void load_pieces(const QueryRow<G>& row, Operand (&operand)[kProducts]) {
    unrolled<kPieces>([&](auto p) {
      const int dim = G::piece_dim(p);
      constexpr bool kBranch = !G::kWholePieces && G::kDimParts == 1;
      auto piece = fill<T, R::kPiece>(T{});
      if constexpr (G::Format::kNarrow) piece = vector_at<Vec<T, R::kPiece>>(row.template words<R::kPiece>(dim));
      else if (!kBranch || G::is_key_dim(dim))
        piece = load_vec<T, R::kPiece>(row.at(kBranch ? dim : min(dim, G::Problem::kKeyDims - R::kPiece)));
      if (!G::Format::kNarrow && !kBranch && !G::is_key_dim(dim)) piece = fill<T, R::kPiece>(T{});
      unrolled<R::kSteps * R::kQueryElements>([&](auto i) {
        constexpr int kStep = i / R::kQueryElements, kElement = i % R::kQueryElements;
        if constexpr (query_stat<R>(kElement) == S)
          operand[p * R::kSteps + kStep][kElement] = piece[kStep * R::kKeyElements + R::query_element(kElement)];
      });
    });
  }

  // Operands that are the same for all lanes: each lane brings one piece of all rows.
  RF_DEVICE static void share_pieces(const QueryRow<G> (&row)[R::kStats], Shared& shared, int t) {
    static_assert(kInSharedMemory && R::kSteps == 1 && G::Problem::kKeyDims % R::kPiece == 0 && kPieces <= R::kWave);
    const int piece = lane<R::kWave>();
    if (piece >= kPieces) return;
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      const auto words = row[s].template words<R::kPiece>(piece * R::kPiece);
      RF_UNROLL
      for (int i = 0; i < words.kCount; ++i) {
        const int word = s * words.kCount + i;
        shared.part[G::row_wave()][t][piece][word / Part::kCount][0].word[word % Part::kCount] = words.word[i];
      }
    }
  }
};

}  // namespace rocmforge
