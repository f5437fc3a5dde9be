// SPDX-License-Identifier: Apache-2.0
// Paged attention, for decode and prefill alike. A workgroup walks its share of the plan (schedule.h); per item it keeps
// the queries and the output in registers and streams key tiles past them:
//   kRowWaves waves hold different rows of the row block, kKeyWaves waves take different keys of each tile.
// Decode has one row wave and reads K and V from memory straight into matrix operands; prefill has one key wave and
// shares each tile through shared memory.
#pragma once

#include "../matrix/roles.h"
#include "dims.h"
#include "keys_direct.h"
#include "keys_ring.h"
#include "keys_staged.h"
#include "keys_warpgroup.h"
#include "schedule.h"
#include "softmax.h"

namespace rocmforge {

template <class R, int HeadSize, class Shape>
struct KeysOf {
  using Type = SelectType<(Shape::kStages > 0), RingKeys<R, HeadSize, Shape>,
                          SelectType<Shape::kStaged, StagedKeys<R, HeadSize, Shape>, DirectKeys<R, HeadSize, Shape>>>;
};
template <class R, int HeadSize, class Shape>
  requires(Shape::kWarpgroup)
struct KeysOf<R, HeadSize, Shape> {
  using Type = WarpgroupKeys<R, HeadSize, Shape>;
};

template <class Mma, int HeadSize, class Shape>
struct Attention {
  using Args = AttentionArgs;
  using R = Roles<Mma>;
  using T = typename R::T;
  using D = Dims<HeadSize, R::kDims, Shape::kRun>;
  using Tile = typename R::Tile;
  using Keys = typename KeysOf<R, HeadSize, Shape>::Type;

  static constexpr int kQueryTiles = Shape::kQueryTiles;
  static constexpr int kWaves = Shape::kRowWaves * Shape::kKeyWaves;
  static constexpr int kBlockRows = Shape::kRowWaves * kQueryTiles * R::kRows;
  static constexpr int kWaveKeys = Shape::kPvGroups * R::kPvKeys;
  static constexpr int kTileKeys = Shape::kKeyWaves * kWaveKeys;
  static constexpr int kScoreTiles = kWaveKeys / R::kKeys;
  static constexpr int kPieces = ceil_div(HeadSize, R::kPieceDims);
  static constexpr int kProducts = kPieces * R::kSteps;  // along the head's dims

  // The waves' outputs meet here, a band of one query tile and a few registers of it at a time, already
  // in the order of the lanes that need them.
  static constexpr int kMergeRegisters = 128 / R::kWave;
  struct Merge {
    float out[Shape::kKeyWaves][8 * kMergeRegisters][R::kWave];
    SoftmaxState stats[Shape::kKeyWaves][kQueryTiles][R::kStats][R::kWave];
  };
  struct Empty {};
  // A wave's queries as matrix operands: of one lane, or of all lanes where they wait in shared memory.
  struct HeldQueries {
    Words<T, R::kQueryElements> operand[kQueryTiles][kProducts];
  };
  struct SharedQueries {
    Words<T, R::kQueryElements> operand[Shape::kRowWaves][kQueryTiles][kProducts][R::kQueryLanes];
  };
  struct Shared {
    union {
      typename Keys::Shared keys;
      Merge merge;
    };
    SelectType<Shape::kSharedQuery, SharedQueries, Empty> query;
  };
  static constexpr int kWavesPerUnit = Shape::kWavesPerUnit;
  static constexpr LaunchConfig kConfig{.wave = R::kWave,
                                        .threads = kWaves * R::kWave,
                                        .shared_bytes = sizeof(Shared),
                                        .rows = kBlockRows,
                                        .keys = kTileKeys,
                                        .blocks_per_unit = Shape::kBlocksPerUnit};

  RF_DEVICE static void run(const Args& args) {
    let_next_start();  // combine, which fits beside us once a workgroup has ended
    Segments segments(args);
    Segment seg;
    if (!segments.first(args, seg)) return;
    if constexpr (Shape::kStages > 0) {
      // The next item's copies are under way while this one's result is written.
      Keys keys = start_keys(args, seg);
      for (bool more = true; more;) {
        const Segment done = seg;
        State state;
        attend(args, done, keys, state);
        more = segments.next(args, seg);
        if (more) {
          keys.restart(seg.request, seg.head, seen_keys(args, seg), seg.first_tile + seg.begin,
                       seg.first_tile + seg.end);
        }
        write(args, done, state);
      }
    } else {
      do {
        const Args& again = reload_args(args);
        Keys keys = start_keys(again, seg);
        State state;
        attend(again, seg, keys, state);
        write(again, seg, state);
      } while (segments.next(args, seg));
    }
  }

 private:
  // A run of an item's tiles, and what the item is.
  struct Segment {
    int head, request, first_row, rows, tokens_before, token_start, seq_len;
    int first_tile, tiles;  // of the item
    int begin, end;         // of the segment, counted from first_tile
    int share;              // whose segment it is

    RF_DEVICE void item(const Args& args, const RowBlock& block, int kv_head) {
      head = kv_head;
      request = block.request;
      first_row = block.first_row;
      token_start = block.token_start;
      rows = block.query_len * static_cast<int>(args.group.divisor);
      seq_len = block.seq_len;
      tokens_before = seq_len - block.query_len;
      first_tile = block.first_tile;
      tiles = block.tiles - kItemTiles;
    }
    RF_DEVICE bool whole() const { return begin == 0 && end == tiles; }
  };

  // The segments of this workgroup's share, in order.
  class Segments {
   public:
    RF_DEVICE explicit Segments(const Args& args) : plan_{args.plan, args.workgroups} {}

    RF_DEVICE bool first(const Args& args, Segment& segment) {
      const int workgroup = block_index(0);
      // All loads before any use.
      const int used_word = plan_.workgroups(), per_head_word = plan_.tiles_per_head(), start = plan_.start(workgroup);
      const RowBlock block = plan_.first_block(workgroup);
      const int used = uniform<R::kWave>(used_word), per_head = uniform<R::kWave>(per_head_word);
      if (workgroup >= used) return false;
      segment.share = share_of(workgroup, used);
      block_number_ = uniform<R::kWave>(start);
      const int64_t tiles = static_cast<int64_t>(per_head) * args.kv_heads;
      const int64_t begin = cut(tiles, used, segment.share);
      left_ = static_cast<int>(cut(tiles, used, segment.share + 1) - begin);
      head_ = static_cast<int>(begin / per_head);
      return take(args, uniform_block(block), static_cast<int>(begin % per_head), segment) || next(args, segment);
    }

    RF_DEVICE bool next(const Args& args, Segment& segment) {
      while (left_ > 0) {
        if (++block_number_ == uniform<R::kWave>(plan_.row_blocks())) {
          block_number_ = 0;
          ++head_;
        }
        const RowBlock block = uniform_block(plan_.block(block_number_));
        if (take(args, block, block.prefix, segment)) return true;
      }
      return false;
    }

   private:
    // What the share has of the block's tiles from `at` on, its weight for being an item apart.
    RF_DEVICE bool take(const Args& args, const RowBlock& block, int at, Segment& segment) {
      const int count = min(left_, block.prefix + block.tiles - at), item_begin = block.prefix + kItemTiles;
      segment.item(args, block, head_);
      segment.begin = max(at - item_begin, 0);
      segment.end = at + count - item_begin;
      left_ -= count;
      return segment.end > segment.begin;
    }

    RF_DEVICE static RowBlock uniform_block(const RowBlock& b) {
      return {uniform<R::kWave>(b.request), uniform<R::kWave>(b.first_row), uniform<R::kWave>(b.first_tile),
              uniform<R::kWave>(b.prefix), uniform<R::kWave>(b.tiles), uniform<R::kWave>(b.token_start),
              uniform<R::kWave>(b.query_len), uniform<R::kWave>(b.seq_len)};
    }

    Plan plan_;
    int block_number_ = 0, head_ = 0, left_ = 0;
  };

  // A packed row's token, and its query head within the group.
  RF_DEVICE static Quotient split_row(const Args& args, int row) { return divide(row, args.group); }

  RF_DEVICE static int64_t query_head(const Args& args, const Segment& seg, Quotient row) {
    return static_cast<int64_t>(seg.head) * args.group.divisor + row.remainder;
  }

  // What a wave carries from tile to tile.
  struct State {
    SelectType<Shape::kSharedQuery, Empty, HeldQueries> query;
    Tile out[kQueryTiles][D::kTiles];
    SoftmaxState row[kQueryTiles][R::kStats];
    int last_key[kQueryTiles][R::kStats];  // position of the last key the row sees; -1: no such row
  };

  RF_DEVICE static int lane_row(int query_tile, int stat) {
    return (row_wave() * kQueryTiles + query_tile) * R::kRows + R::stat_query(lane<R::kWave>(), stat);
  }

  RF_DEVICE static int row_wave() { return wave_index<R::kWave>() / Shape::kKeyWaves; }
  RF_DEVICE static int key_wave() { return wave_index<R::kWave>() % Shape::kKeyWaves; }

  RF_DEVICE static int last_row(const Segment& seg) { return min(seg.first_row + kBlockRows, seg.rows) - 1; }

  // Keys that some row of the item sees.
  RF_DEVICE static KeySpan seen_keys(const Args& args, const Segment& seg) {
    return {span_of(args, seg, seg.first_row).first, span_of(args, seg, last_row(seg)).last};
  }

  RF_DEVICE static Keys start_keys(const Args& args, const Segment& seg) {
    Keys keys(args, shared_memory<Shared>().keys, seg.request, seg.head, seen_keys(args, seg), key_wave());
    keys.start(seg.first_tile + seg.begin, seg.first_tile + seg.end);
    return keys;
  }

  // Takes the segment's tiles, the first of which has been requested.
  RF_DEVICE static void attend(const Args& args, const Segment& seg, Keys& keys, State& state) {
    load_queries(args, seg, state);
    // Tiles that every row of the wave sees whole need no mask. Rows are token-major, so the first row sees the fewest
    // of the newest keys and the last row the fewest of the oldest. Past the last row's last key there is nothing to do.
    // Waves of a warpgroup decide as one, and the compiler must see that they do.
    constexpr int kTogether = Shape::kWarpgroup ? 4 : 1, kWaveRows = kQueryTiles * R::kRows * kTogether;
    const int together = uniform_now<R::kWave>(row_wave() / kTogether);
    const int last = last_row(seg), wave_row = seg.first_row + together * kWaveRows;
    const KeySpan first_sees = span_of(args, seg, min(wave_row, last));
    const KeySpan last_sees = span_of(args, seg, min(wave_row + kWaveRows - 1, last));
    const int full_end = (first_sees.last + 1) / kTileKeys - seg.first_tile;
    const int full_begin = ceil_div(last_sees.first, kTileKeys) - seg.first_tile;
    const int wave_end = wave_row > last ? 0 : last_sees.last / kTileKeys + 1 - seg.first_tile;

    for (int tile = seg.begin; tile < seg.end; ++tile) {
      keys.wait();
      if (!Shape::kStaged || tile < wave_end)
        step(args, seg, tile, tile < full_begin || tile >= full_end, keys, state);
      keys.next(seg.first_tile + tile + 1);
    }
    keys.finish();
  }

  RF_DEVICE static KeySpan span_of(const Args& args, const Segment& seg, int row) {
    const int token = split_row(args, row).quotient;
    return key_span(token, token, seg.seq_len - seg.tokens_before, seg.seq_len, args.window);
  }

  RF_DEVICE static void load_queries(const Args& args, const Segment& seg, State& state) {
    const T* const queries = static_cast<const T*>(args.query);
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      const T* source[R::kStats];
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        const int row = seg.first_row + lane_row(t, s);
        const bool valid = row < seg.rows;
        // A row past the end reads another's query: its result is never written.
        const Quotient at = split_row(args, valid ? row : seg.first_row);
        state.last_key[t][s] = valid ? seg.tokens_before + at.quotient : -1;
        source[s] = queries + (seg.token_start + at.quotient) * args.query_token_stride +
                    query_head(args, seg, at) * args.query_head_stride;
      }
      if constexpr (R::kQueryLanes == 1) {
        if (key_wave() == 0) share_pieces(source, t);
      } else {
        typename R::QueryOperand operand[kProducts];
        RF_UNROLL
        for (int s = 0; s < R::kStats; ++s) {
          if constexpr (Shape::kWarpgroup) load_in_order(source[s], s, operand);
          else load_pieces(source[s], s, operand);
        }
        RF_UNROLL
        for (int i = 0; i < kProducts; ++i) {
          if constexpr (!Shape::kSharedQuery) state.query.operand[t][i] = words_of(operand[i]);
          else if (key_wave() == 0) shared_query(t, i) = words_of(operand[i]);
        }
      }
      RF_UNROLL
      for (int n = 0; n < D::kTiles; ++n) state.out[t][n] = fill<float, R::kScores>(0.0f);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) state.row[t][s] = kNoKeys;
    }
    if constexpr (Shape::kSharedQuery && Shape::kKeyWaves > 1) barrier();
  }

  // The elements of statistic s's row, with the contraction's slots named as in roles.h.
  RF_DEVICE static void load_pieces(const T* row, int s, typename R::QueryOperand (&operand)[kProducts]) {
    unrolled<kPieces>([&](auto p) {
      const int dim = (p * R::kGroups + R::group(lane<R::kWave>())) * R::kPiece;
      const bool inside = HeadSize % R::kPieceDims == 0 || dim < HeadSize;
      const auto piece = inside ? load_vec<T, R::kPiece>(row + dim) : fill<T, R::kPiece>(T{});
      RF_UNROLL
      for (int i = 0; i < R::kSteps * R::kQueryElements; ++i) {
        const int step = i / R::kQueryElements, element = i % R::kQueryElements;
        if (query_stat(element) == s)
          operand[p * R::kSteps + step][element] = piece[step * R::kKeyElements + R::query_element(element)];
      }
    });
  }

  // The same with the slots in the order of the dims, as the keys lie in shared memory.
  RF_DEVICE static void load_in_order(const T* row, int s, typename R::QueryOperand (&operand)[kProducts]) {
    RF_UNROLL
    for (int i = 0; i < kProducts; ++i) {
      RF_UNROLL
      for (int e = 0; e < R::kQueryElements; e += 2) {
        if (query_stat(e) != s) continue;
        const auto pair = load_vec<T, 2>(row + i * Mma::kK + Mma::a_k(lane<R::kWave>(), e));
        operand[i][e] = pair[0];
        operand[i][e + 1] = pair[1];
      }
    }
  }

  // Operands that are the same for all lanes: each lane brings one piece of all rows.
  RF_DEVICE static void share_pieces(const T* const (&row)[R::kStats], int t) {
    static_assert(Shape::kSharedQuery && R::kSteps == 1 && HeadSize % R::kPiece == 0 && kPieces <= R::kWave);
    const int piece = lane<R::kWave>();
    if (piece >= kPieces) return;
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      const auto words = load_words<T, R::kPiece>(row[s] + piece * R::kPiece);
      RF_UNROLL
      for (int i = 0; i < words.kCount; ++i)
        shared_memory<Shared>().query.operand[row_wave()][t][piece][0].word[s * words.kCount + i] = words.word[i];
    }
  }

  RF_DEVICE static auto& shared_query(int t, int i) {
    return shared_memory<Shared>().query.operand[row_wave()][t][i][lane<R::kWave>() % R::kQueryLanes];
  }

  RF_DEVICE static typename R::QueryOperand query_operand(const State& state, int t, int i) {
    if constexpr (Shape::kSharedQuery) return vector_at<typename R::QueryOperand>(shared_query(t, i));
    else return vector_at<typename R::QueryOperand>(state.query.operand[t][i]);
  }

  // Which of a lane's rows element i of its query operand belongs to.
  RF_DEVICE static constexpr int query_stat(int i) {
    int s = 0;
    while (R::stat_query(0, s) != R::operand_query(0, i)) ++s;
    return s;
  }

  RF_DEVICE static void score(const Keys& keys, const State& state, Tile (&scores)[kQueryTiles][kScoreTiles]) {
    if constexpr (Shape::kWarpgroup) {
      typename R::QueryOperand query[kProducts];
      RF_UNROLL
      for (int i = 0; i < kProducts; ++i) query[i] = query_operand(state, 0, i);
      keys.score(query, scores[0]);
    } else if constexpr (Shape::kStages > 0) {
      // Piece by piece of the dims: a query operand is fetched once for all keys of the tile.
      RF_UNROLL
      for (int t = 0; t < kQueryTiles; ++t) {
        RF_UNROLL
        for (int j = 0; j < kScoreTiles; ++j) scores[t][j] = fill<float, R::kScores>(0.0f);
      }
      unrolled<kPieces>([&](auto p) {
        typename R::QueryOperand query[kQueryTiles][R::kSteps];
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) {
          RF_UNROLL
          for (int i = 0; i < R::kSteps; ++i) query[t][i] = query_operand(state, t, p * R::kSteps + i);
        }
        // Products that add to the same scores lie apart, for each takes a while.
        constexpr int kAtOnce = kScoreTiles % 4 == 0 ? 4 : kScoreTiles % 3 == 0 ? 3 : kScoreTiles % 2 == 0 ? 2 : 1;
        unrolled<kScoreTiles / kAtOnce>([&](auto part) {
          typename R::KeyOperand operand[kAtOnce][R::kSteps];
          unrolled<kAtOnce>([&](auto j) { keys.template key_piece<part * kAtOnce + j, p>(operand[j]); });
          RF_UNROLL
          for (int i = 0; i < R::kSteps; ++i) {
            RF_UNROLL
            for (int j = 0; j < kAtOnce; ++j) {
              RF_UNROLL
              for (int t = 0; t < kQueryTiles; ++t)
                R::template score<1>(scores[t][part * kAtOnce + j], &operand[j][i], &query[t][i]);
            }
          }
        });
      });
    } else {
      unrolled<kScoreTiles>([&](auto j) {
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) scores[t][j] = fill<float, R::kScores>(0.0f);
        constexpr int kAtOnce = kHostTarget ? kPieces : 1;  // few operands alive at a time
        unrolled<kPieces / kAtOnce>([&](auto part) {
          constexpr int kCount = kAtOnce * R::kSteps;
          typename R::KeyOperand operand[kCount];
          unrolled<kAtOnce>([&](auto p) { keys.template key_piece<j, part * kAtOnce + p>(operand + p * R::kSteps); });
          RF_UNROLL
          for (int t = 0; t < kQueryTiles; ++t) {
            typename R::QueryOperand query[kCount];
            RF_UNROLL
            for (int i = 0; i < kCount; ++i) query[i] = query_operand(state, t, part * kCount + i);
            R::template score<kCount>(scores[t][j], operand, query);
          }
          if constexpr (Shape::kFence > 0 && (part + 1) * kCount % Shape::kFence == 0) schedule_fence();
        });
      });
    }
  }

  RF_DEVICE static void step(const Args& args, const Segment& seg, int tile, bool masked, Keys& keys,
                             State& state) {
    const int first_key = (seg.first_tile + tile) * kTileKeys + key_wave() * kWaveKeys;
    Tile scores[kQueryTiles][kScoreTiles];
    score(keys, state, scores);
    keys.next_keys(seg.first_tile + tile + 1);
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      if (Shape::kGuess ? __builtin_expect(masked, false) : masked) mask(args, first_key, state.last_key[t], scores[t]);
      soften(args, scores[t], state.row[t], state.out[t]);
    }
    if constexpr (Shape::kWarpgroup) {
      typename R::QueryOperand p[Shape::kPvGroups];
      RF_UNROLL
      for (int g = 0; g < Shape::kPvGroups; ++g) p[g] = R::probabilities(&scores[0][g * R::kPvTiles], 0);
      keys.accumulate(p, state.out[0]);
    } else {
      accumulate(keys, scores, state);
    }
  }

  RF_DEVICE static void accumulate(const Keys& keys, const Tile (&scores)[kQueryTiles][kScoreTiles], State& state) {
    unrolled<Shape::kPvGroups>([&](auto g) {
      unrolled<R::kPvOperands>([&](auto op) {
        typename R::QueryOperand p[kQueryTiles];
        RF_UNROLL
        for (int t = 0; t < kQueryTiles; ++t) p[t] = R::probabilities(&scores[t][g * R::kPvTiles], op);
        unrolled<D::kBands>([&](auto band) {
          constexpr int kWidth = D::width(band);
          if constexpr (Shape::kTransposed) {
            static_assert(kWidth == 1);
            const typename R::KeyOperand operand = keys.template value_operand<g, op, band>();
            RF_UNROLL
            for (int t = 0; t < kQueryTiles; ++t) R::template accumulate<1>(&state.out[t][band], &operand, p[t]);
            return;
          }
          Words<T, kWidth> runs[R::kKeyElements];
          keys.template value_runs<g, op, band>(runs);
          constexpr int kAtOnce = kHostTarget ? kWidth : min(kWidth, 2);  // few operands alive at a time
          unrolled<kWidth / kAtOnce>([&](auto part) {
            typename R::KeyOperand operand[kAtOnce];
            RF_UNROLL
            for (int n = 0; n < kAtOnce; ++n) operand[n] = column(runs, part * kAtOnce + n);
            RF_UNROLL
            for (int t = 0; t < kQueryTiles; ++t)
              R::template accumulate<kAtOnce>(state.out[t] + D::first_tile(band) + part * kAtOnce, operand, p[t]);
            if constexpr (Shape::kFence > 0) schedule_fence();
          });
        });
      });
    });
    if constexpr (Shape::kFence > 0) {
      RF_UNROLL
      for (int t = 0; t < kQueryTiles; ++t) {
        RF_UNROLL
        for (int n = 0; n < D::kTiles; ++n) settle(state.out[t][n]);
      }
    }
  }

  RF_DEVICE static void mask(const Args& args, int first_key, const int (&last_key)[R::kStats],
                             Tile (&scores)[kScoreTiles]) {
    RF_UNROLL
    for (int j = 0; j < kScoreTiles; ++j) {
      RF_UNROLL
      for (int r = 0; r < R::kScores; ++r) {
        const int key = first_key + j * R::kKeys + R::key(lane<R::kWave>(), r);
        const int last = last_key[R::stat(r)];
        const bool seen = key <= last && (args.window <= 0 || key > last - args.window);
        scores[j][r] = seen ? scores[j][r] : -__builtin_inff();
      }
    }
  }

  // Scores to probabilities, with the running maximum and sum. The sum stays per lane until the end; the maximum must
  // be common to the lanes of a row, so it moves only when some lane's scores have outgrown it.
  RF_DEVICE static void soften(const Args& args, Tile (&scores)[kScoreTiles], SoftmaxState (&row)[R::kStats],
                               Tile (&out)[D::kTiles]) {
    bool outgrown = false;
    if constexpr (Shape::kGuess) {
      // A score that has outgrown the maximum shows in its lane's sum, so the tile's own maximum need not be known.
      Tile raised[kScoreTiles];
      float sum[R::kStats] = {};
      raise(args, scores, row, raised, sum);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) outgrown |= sum[s] > kMaxGrowth;
      if (any<R::kWave>(outgrown)) [[unlikely]] {
        float top[R::kStats];
        find_top(scores, top);
        rescale(args, top, row, out);
        RF_UNROLL
        for (int s = 0; s < R::kStats; ++s) sum[s] = 0.0f;
        raise(args, scores, row, raised, sum);
      }
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) row[s].sum += sum[s];
      RF_UNROLL
      for (int j = 0; j < kScoreTiles; ++j) scores[j] = raised[j];
    } else {
      float top[R::kStats], sum[R::kStats];
      find_top(scores, top);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) outgrown |= top[s] * args.scale_log2 > row[s].maximum + kMaxLag;
      if (any<R::kWave>(outgrown)) rescale(args, top, row, out);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) sum[s] = row[s].sum;
      raise(args, scores, row, scores, sum);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) row[s].sum = sum[s];
    }
  }

  // The largest of a lane's scores, by row.
  RF_DEVICE static void find_top(const Tile (&scores)[kScoreTiles], float (&top)[R::kStats]) {
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) top[s] = -__builtin_inff();
    RF_UNROLL
    for (int j = 0; j < kScoreTiles; ++j) {
      RF_UNROLL
      for (int r = 0; r < R::kScores; ++r) top[R::stat(r)] = max(top[R::stat(r)], scores[j][r]);
    }
  }

  // Moves the maximum, and sums and outputs with it.
  RF_DEVICE static void rescale(const Args& args, const float (&top)[R::kStats], SoftmaxState (&row)[R::kStats],
                                Tile (&out)[D::kTiles]) {
    float factor[R::kStats];
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      const float maximum =
          max(row[s].maximum, R::reduce(top[s], [](float a, float b) { return max(a, b); }) * args.scale_log2);
      factor[s] = exp2(row[s].maximum - maximum);
      row[s].maximum = maximum;
      row[s].sum *= factor[s];
    }
    RF_UNROLL
    for (int n = 0; n < D::kTiles; ++n) {
      RF_UNROLL
      for (int r = 0; r < R::kScores; ++r) out[n][r] *= factor[R::stat(r)];
    }
  }

  // Probabilities relative to the maximum, and what they add to the sums.
  RF_DEVICE static void raise(const Args& args, const Tile (&scores)[kScoreTiles], const SoftmaxState (&row)[R::kStats],
                              Tile (&raised)[kScoreTiles], float (&sum)[R::kStats]) {
    constexpr int kRun = R::kScores / R::kStats;  // registers of one row
    constexpr int kPack = min(kPackedFloats, kRun);
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      auto sums = fill<float, kPack>(0.0f);
      sums[0] = sum[s];
      RF_UNROLL
      for (int j = 0; j < kScoreTiles; ++j) {
        RF_UNROLL
        for (int r = s * kRun; r < (s + 1) * kRun; r += kPack) {
          Vec<float, kPack> run;
          RF_UNROLL
          for (int i = 0; i < kPack; ++i) run[i] = scores[j][r + i];
          run = fma(run, args.scale_log2, -row[s].maximum);
          RF_UNROLL
          for (int i = 0; i < kPack; ++i) run[i] = raised[j][r + i] = exp2(run[i]);
          sums = add(sums, run);
        }
      }
      sum[s] = sums[0];
      RF_UNROLL
      for (int i = 1; i < kPack; ++i) sum[s] += sums[i];
    }
  }

  RF_DEVICE static void write(const Args& earlier, const Segment& seg, State& state) {
    const Args& args = reload_args(earlier);
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s)
        state.row[t][s].sum = R::reduce(state.row[t][s].sum, [](float a, float b) { return a + b; });
    }
    if constexpr (Shape::kKeyWaves > 1) {
      barrier();  // the last reads of shared memory are done
      merge_waves(args, seg, state);
      barrier();
    } else {
      RF_UNROLL
      for (int t = 0; t < kQueryTiles; ++t) {
        RowResult row[R::kStats];
        RF_UNROLL
        for (int s = 0; s < R::kStats; ++s) row[s] = row_result(args, seg, lane_row(t, s), state.row[t][s]);
        unrolled<D::kBands>([&](auto band) {
          // Consecutive dims lie in consecutive tiles, or in consecutive registers of one.
          constexpr bool kAcross = D::width(band) > 1;
          constexpr int kWidth = kAcross ? D::width(band) : R::kRunRegisters;
          RF_UNROLL
          for (int r = 0; r < R::kScores; r += kAcross ? 1 : kWidth) {
            Vec<float, kWidth> run;
            RF_UNROLL
            for (int j = 0; j < kWidth; ++j)
              run[j] = state.out[t][D::first_tile(band) + (kAcross ? j : 0)][kAcross ? r : r + j];
            write_run<band>(row[R::stat(r)], r, run);
          }
        });
      }
    }
  }

  // Key waves hold the same rows over different keys: each takes its share of the output registers, sums all waves'
  // copies of them, and writes.
  RF_DEVICE static void merge_waves(const Args& args, const Segment& seg, State& state) {
    static_assert(Shape::kRowWaves == 1);
    Merge& merged = shared_memory<Shared>().merge;
    const int l = lane<R::kWave>();
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) merged.stats[key_wave()][t][s][l] = state.row[t][s];
    }
    barrier();
    RF_UNROLL
    for (int t = 0; t < kQueryTiles; ++t) {
      RowResult row[R::kStats];
      float mine[R::kStats];
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) {
        SoftmaxState total = kNoKeys;
        for (int w = 0; w < Shape::kKeyWaves; ++w) {
          float unused[2];
          total = merge(total, merged.stats[w][t][s][l], unused[0], unused[1]);
        }
        mine[s] = exp2(state.row[t][s].maximum - total.maximum);
        row[s] = row_result(args, seg, lane_row(t, s), total);
      }
      unrolled<D::kBands>([&](auto band) {
        constexpr int kWidth = D::width(band);
        unrolled<R::kScores / kMergeRegisters>([&](auto pass) {
          RF_UNROLL
          for (int i = 0; i < kMergeRegisters; ++i) {
            const int r = pass * kMergeRegisters + i;
            RF_UNROLL
            for (int j = 0; j < kWidth; ++j)
              merged.out[key_wave()][i * kWidth + j][l] = state.out[t][D::first_tile(band) + j][r] * mine[R::stat(r)];
          }
          barrier();
          RF_UNROLL
          for (int i = 0; i < kMergeRegisters; ++i) {
            if (i != key_wave()) continue;
            const int r = pass * kMergeRegisters + i;
            Vec<float, kWidth> run = fill<float, kWidth>(0.0f);
            for (int w = 0; w < Shape::kKeyWaves; ++w) {
              RF_UNROLL
              for (int j = 0; j < kWidth; ++j) run[j] += merged.out[w][i * kWidth + j][l];
            }
            write_run<band>(row[R::stat(r)], r, run);
          }
          barrier();
        });
      });
    }
  }

  // Where a row's dims go, the result if the segment is a whole item, else a partial; nowhere if there is no such row.
  struct RowResult {
    T* out = nullptr;
    float* partial = nullptr;
    float scale;
  };

  RF_DEVICE static RowResult row_result(const Args& args, const Segment& seg, int block_row, SoftmaxState row) {
    RowResult result;
    if (seg.first_row + block_row >= seg.rows) return result;
    if (!seg.whole()) {
      const int64_t slot = 2 * seg.share + (seg.begin > 0 ? 0 : 1);
      const int64_t at = slot * kBlockRows + block_row;
      result.partial = args.partial_out + at * HeadSize;
      if (R::key(lane<R::kWave>(), 0) == 0 && key_wave() == 0)
        store_vec(args.partial_stats + at * 2, Vec<float, 2>{{row.maximum, row.sum}});
      return result;
    }
    const Quotient at = split_row(args, seg.first_row + block_row);
    const int64_t head = query_head(args, seg, at);
    result.out = static_cast<T*>(args.out) + (seg.token_start + at.quotient) * args.out_token_stride +
                 head * args.out_head_stride;
    result.scale = final_scale(row, args.sinks ? args.sinks[head] * kLog2E : kNoScore);
    return result;
  }

  // Writes a run of a row's consecutive dims, of which register r holds the first.
  template <int Band, int Width>
  RF_DEVICE static void write_run(const RowResult& row, int r, const Vec<float, Width>& run) {
    const int dim = D::run_start(Band, R::key(lane<R::kWave>(), r));
    if (row.partial) store_vec(row.partial + dim, run);
    if (!row.out) return;
    Vec<T, Width> out;
    RF_UNROLL
    for (int j = 0; j < Width; ++j) out[j] = from_float<T>(run[j] * row.scale);
    store_vec(row.out + dim, out);
  }
};

}  // namespace rocmforge
