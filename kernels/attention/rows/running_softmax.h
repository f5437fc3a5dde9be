// SPDX-License-Identifier: Apache-2.0
// The running softmax on a wave's tiles: scores, the mask, probabilities, and the maximum that moves now and then.
#pragma once

#include "../args.h"
#include "../geometry.h"
#include "../problem/mask.h"
#include "../problem/score.h"

namespace rocmforge {

template <class G>
struct RunningSoftmax {
  using R = typename G::R;
  using D = typename G::D;
  using Tile = typename G::Tile;
  using Score = typename G::Score;
  using Args = AttentionArgs;
  static constexpr int kScoreTiles = G::kScoreTiles;

  // Products to scores.
  RF_DEVICE static void shape(const Args& args, int head, const typename Score::Row (&row)[R::kStats], int first_key,
                              Tile (&scores)[kScoreTiles]) {
    if constexpr (Score::kReshapes) {
      const float key_scale = G::Format::key_scale(args.keys, head);
      float distance[R::kStats];  // of the key of register 0
      if constexpr (ByDistance<Score>) {
        RF_UNROLL
        for (int s = 0; s < R::kStats; ++s) distance[s] = static_cast<float>(tile_key(first_key, 0, 0) - row[s].own);
      }
      RF_UNROLL
      for (int j = 0; j < kScoreTiles; ++j) {
        RF_UNROLL
        for (int r = 0; r < R::kScores; ++r) {
          const int s = R::stat(r);
          const float product = scores[j][r] * key_scale;
          if constexpr (ByDistance<Score>) {
            // As far from register 0's in all lanes. Of packed instructions, a step takes scalar registers, which would
            // be spilled (2 to 4 in gfx90a's prefill and decode of 64 rows and in gfx950's decode, at 128 dims).
            const int from_first = j * R::kKeys + R::key(0, r) - R::key(0, 0);
            const float behind = kPackedFloats > 1 ? static_cast<float>(tile_key(first_key, j, r) - row[s].own)
                                                   : distance[s] + static_cast<float>(from_first);
            scores[j][r] = Score::shape_at(args.softmax, row[s], behind, product);
          } else {
            scores[j][r] = Score::shape(args.softmax, row[s], tile_key(first_key, j, r), product);
          }
        }
      }
    }
  }

  // Scores of keys that a row does not see become -inf. The few tiles that come here work out what their rows see:
  // known before the loop over tiles it would hold registers there (9 of gfx90a's prefill at 80 dims).
  RF_DEVICE static void mask(const Mask& mask, const Context& request, int first_key, const int (&token)[R::kStats],
                             Tile (&scores)[kScoreTiles]) {
    KeySpan seen[R::kStats];
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      int here = token[s];
      materialize(here);  // so not before the loop
      seen[s] = G::Masked::keys(mask, request, here);
    }
    RF_UNROLL
    for (int j = 0; j < kScoreTiles; ++j) {
      RF_UNROLL
      for (int r = 0; r < R::kScores; ++r) {
        if (!seen[R::stat(r)].contains(tile_key(first_key, j, r))) scores[j][r] = -__builtin_inff();
      }
    }
  }

  // Scores to probabilities, with the running maximum and sum. The sum stays per lane until the end; the maximum must
  // be common to the lanes of a row, so it moves only when some lane's scores have outgrown it.
  RF_DEVICE static void update(const Args& args, int head, Tile (&scores)[kScoreTiles], SoftmaxState (&row)[R::kStats],
                               Tile (&out)[D::kTiles]) {
    bool outgrown = false;
    if constexpr (G::kLoop.lazy_maximum) {
      // A score that has outgrown the maximum shows in its lane's sum, so the tile's own maximum need not be known.
      Tile powers[kScoreTiles];
      float sum[R::kStats] = {};
      exponentiate(args, head, scores, row, powers, sum);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) outgrown |= sum[s] > kMaxGrowth;
      if (any<R::kWave>(outgrown)) [[unlikely]] {
        float top[R::kStats];
        find_top(scores, top);
        rescale(args, head, top, row, out);
        RF_UNROLL
        for (int s = 0; s < R::kStats; ++s) sum[s] = 0.0f;
        exponentiate(args, head, scores, row, powers, sum);
      }
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) row[s].sum += sum[s];
      RF_UNROLL
      for (int j = 0; j < kScoreTiles; ++j) scores[j] = powers[j];
    } else {
      float top[R::kStats], sum[R::kStats];
      find_top(scores, top);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) outgrown |= top[s] * factor(args, head) > row[s].maximum + kMaxLag;
      if (any<R::kWave>(outgrown)) rescale(args, head, top, row, out);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) sum[s] = row[s].sum;
      exponentiate(args, head, scores, row, scores, sum);
      RF_UNROLL
      for (int s = 0; s < R::kStats; ++s) row[s].sum = sum[s];
    }
  }

 private:
  // What turns a KV head's scores into log2 units.
  RF_DEVICE static float factor(const Args& args, int head) {
    if constexpr (Score::kReshapes) return Score::factor(args.softmax);
    else return Score::factor(args.softmax) * G::Format::key_scale(args.keys, head);
  }

  // Position of the key that score register r of key tile j is of, in a wave's keys from first_key on.
  RF_DEVICE static int tile_key(int first_key, int j, int r) {
    return first_key + j * R::kKeys + R::key(lane<R::kWave>(), r);
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
  RF_DEVICE static void rescale(const Args& args, int head, const float (&top)[R::kStats],
                                SoftmaxState (&row)[R::kStats], Tile (&out)[D::kTiles]) {
    float shrink[R::kStats];
    RF_UNROLL
    for (int s = 0; s < R::kStats; ++s) {
      const float maximum =
          max(row[s].maximum, R::reduce(top[s], [](float a, float b) { return max(a, b); }) * factor(args, head));
      shrink[s] = exp2(row[s].maximum - maximum);
      row[s].maximum = maximum;
      row[s].sum *= shrink[s];
    }
    RF_UNROLL
    for (int n = 0; n < D::kTiles; ++n) {
      RF_UNROLL
      for (int r = 0; r < R::kScores; ++r) out[n][r] *= shrink[R::stat(r)];
    }
  }

  // Probabilities relative to the maximum, and what they add to the sums.
  RF_DEVICE static void exponentiate(const Args& args, int head, const Tile (&scores)[kScoreTiles],
                                     const SoftmaxState (&row)[R::kStats], Tile (&powers)[kScoreTiles],
                                     float (&sum)[R::kStats]) {
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
          run = fma(run, factor(args, head), -row[s].maximum);
          RF_UNROLL
          for (int i = 0; i < kPack; ++i) run[i] = powers[j][r + i] = exp2(run[i]);
          sums = add(sums, run);
        }
      }
      sum[s] = sums[0];
      RF_UNROLL
      for (int i = 1; i < kPack; ++i) sum[s] += sums[i];
    }
  }
};

}  // namespace rocmforge
