// SPDX-License-Identifier: Apache-2.0
// The running softmax on a wave's tiles: the mask, probabilities, and the maximum that moves now and then.
#pragma once

#include "args.h"
#include "geometry.h"

namespace rocmforge {

template <class G>
struct RunningSoftmax {
  using R = typename G::R;
  using D = typename G::D;
  using Tile = typename G::Tile;
  using Shape = typename G::Shape;
  using Args = AttentionArgs;
  static constexpr int kScoreTiles = G::kScoreTiles;

  // Scores of keys that a row does not see become -inf.
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

 private:
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
};

}  // namespace rocmforge
