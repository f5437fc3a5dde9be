// SPDX-License-Identifier: Apache-2.0
// Checks of one matrix core's published layout (-DCORE=...): prints what is wrong, a line each, and exits non-zero.
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <utility>
#include <vector>

#include "kernels/attention/dims.h"
#include "kernels/matrix/roles.h"
#include "kernels/matrix/select.h"
#include "kernels/target/unrolled.h"

using namespace rocmforge;
using Mma = CORE<TYPE>;
using R = Roles<Mma>;

static int failures = 0;
#define CHECK(condition, ...)                   \
  do {                                          \
    if (!(condition)) {                         \
      ++failures;                               \
      std::printf(#condition ": " __VA_ARGS__); \
      std::printf("\n");                        \
    }                                           \
  } while (0)

// Every element of a rows x columns operand is held, and by equally many lanes.
template <class Row, class Column>
static void covers(const char* name, int elements, int rows, int columns, int copies, Row row, Column column) {
  std::vector<int> holders(rows * columns);
  for (int l = 0; l < Mma::kWave; ++l)
    for (int e = 0; e < elements; ++e) {
      const int i = row(l, e), j = column(l, e);
      CHECK(i >= 0 && i < rows && j >= 0 && j < columns, "%s lane %d element %d at (%d, %d)", name, l, e, i, j);
      if (i >= 0 && i < rows && j >= 0 && j < columns) ++holders[i * columns + j];
    }
  for (int at = 0; at < rows * columns; ++at)
    CHECK(holders[at] == copies, "%s (%d, %d) held %d times, not %d", name, at / columns, at % columns, holders[at],
          copies);
}

static void operands() {
  covers("A", Mma::kA, Mma::kM, Mma::kK, Mma::kWave * Mma::kA / (Mma::kM * Mma::kK), Mma::a_row, Mma::a_k);
  covers("B", Mma::kB, Mma::kK, Mma::kN, Mma::kWave * Mma::kB / (Mma::kK * Mma::kN), Mma::b_k, Mma::b_col);
  covers("C", Mma::kC, Mma::kM, Mma::kN, 1, Mma::c_row, Mma::c_col);
}

// Slots (group, element) name the contraction index alike for keys and queries, and a lane's rows do not depend on e.
static void slots() {
  auto key_k = [](int l, int e) { return Mma::kKeysOnRows ? Mma::a_k(l, e) : Mma::b_k(l, e); };
  auto query_k = [](int l, int i) { return Mma::kKeysOnRows ? Mma::b_k(l, i) : Mma::a_k(l, i); };
  auto key_row = [](int l, int e) { return Mma::kKeysOnRows ? Mma::a_row(l, e) : Mma::b_col(l, e); };
  for (int l = 0; l < Mma::kWave; ++l)
    for (int e = 0; e < R::kKeyElements; ++e) {
      CHECK(key_row(l, e) == R::operand_row(l), "lane %d element %d", l, e);
      for (int m = 0; m < Mma::kWave; ++m)
        for (int i = 0; i < R::kQueryElements; ++i) {
          const bool same_slot = R::group(l) == R::group(m) && R::query_element(i) == e;
          CHECK((key_k(l, e) == query_k(m, i)) == same_slot, "key lane %d element %d, query lane %d element %d", l, e,
                m, i);
        }
    }
}

// A lane's statistics describe the queries of its registers and of its query operand.
static void statistics() {
  for (int l = 0; l < Mma::kWave; ++l) {
    for (int r = 0; r < R::kScores; ++r)
      CHECK(R::query(l, r) == R::stat_query(l, R::stat(r)), "lane %d register %d", l, r);
    std::set<int> rows;
    for (int s = 0; s < R::kStats; ++s) rows.insert(R::stat_query(l, s));
    for (int i = 0; i < R::kQueryElements; ++i)
      CHECK(rows.count(R::operand_query(l, i)) == 1, "lane %d element %d", l, i);
  }
}

// Each output dim is owned once, in runs of consecutive dims; the runs that a store writes of one query, a register of
// each lane that shares it, lie side by side.
template <int HeadSize>
static void dims() {
  using D = Dims<HeadSize, R::kDims, 8, R::kHolders>;
  std::set<int> owned;
  for (int band = 0; band < D::kBands && R::kHolders > 1; ++band) {
    for (int r = 0; r < R::kScores && D::width(band) > 1; ++r) {
      std::set<int> starts;
      for (int l = 0; l < Mma::kWave; ++l)
        if (R::query(l, r) == 0) starts.insert(D::run_start(band, R::key(l, r)));
      CHECK(static_cast<int>(starts.size()) == R::kHolders &&
                *starts.rbegin() - *starts.begin() == (R::kHolders - 1) * D::width(band),
            "register %d", r);
    }
  }
  for (int band = 0; band < D::kBands; ++band)
    for (int i = 0; i < R::kDims; ++i)
      for (int j = 0; j < D::width(band); ++j) owned.insert(D::run_start(band, i) + j);
  CHECK(static_cast<int>(owned.size()) == HeadSize && *owned.begin() == 0 && *owned.rbegin() == HeadSize - 1, "%d dims",
        HeadSize);
}

// S = K Q^T and O = V^T P on a wave of fibers, with every operand placed by the published layout, against plain loops.
constexpr int kDepth = R::kPieceDims;
struct Case {
  float key[R::kPvKeys][kDepth], query[R::kRows][kDepth], value[R::kPvKeys][R::kDims];
  float score[R::kPvKeys][R::kRows], out[R::kRows][R::kDims];
};

template <int Op, int E = 0>
static void place_values(const Case& c, int l, typename R::KeyOperand& operand) {
  if constexpr (E < R::kKeyElements) {
    operand[E] = from_float<TYPE>(c.value[R::template value_key<Op, E>(l)][R::operand_row(l)]);
    place_values<Op, E + 1>(c, l, operand);
  }
}

static void lane_body(const void* argument) {
  Case& c = *const_cast<Case*>(static_cast<const Case*>(argument));
  const int l = lane<Mma::kWave>();
  typename R::QueryOperand query[R::kSteps];
  for (int s = 0; s < R::kSteps; ++s)
    for (int i = 0; i < R::kQueryElements; ++i) {
      const int d = R::group(l) * R::kPiece + s * R::kKeyElements + R::query_element(i);
      query[s][i] = from_float<TYPE>(c.query[R::operand_query(l, i)][d]);
    }
  typename R::Tile scores[R::kPvTiles], out = fill<float, R::kScores>(0.0f);
  for (int t = 0; t < R::kPvTiles; ++t) {
    typename R::KeyOperand key[R::kSteps];
    for (int s = 0; s < R::kSteps; ++s)
      for (int e = 0; e < R::kKeyElements; ++e) {
        const int d = R::group(l) * R::kPiece + s * R::kKeyElements + e;
        key[s][e] = from_float<TYPE>(c.key[t * R::kKeys + R::operand_row(l)][d]);
      }
    scores[t] = fill<float, R::kScores>(0.0f);
    R::template score<R::kSteps>(scores[t], key, query);
    for (int r = 0; r < R::kScores; ++r) c.score[t * R::kKeys + R::key(l, r)][R::query(l, r)] = scores[t][r];
  }
  unrolled<R::kPvOperands>([&](auto op) {
    typename R::KeyOperand value;
    place_values<op>(c, l, value);
    R::template accumulate<1>(&out, &value, R::probabilities(scores, op));
  });
  for (int r = 0; r < R::kScores; ++r) c.out[R::query(l, r)][R::key(l, r)] = out[r];
  for (int s = 0; s < R::kStats; ++s) {
    const float sum = R::reduce(1.0f, [](float a, float b) { return a + b; });
    CHECK(sum == static_cast<float>(R::kKeys * R::kStats) / R::kScores, "lane %d: %g lanes share a query", l, sum);
  }
}

static void attention() {
  static Case c;
  auto small = [] { return static_cast<float>(std::rand() % 9 - 4); };  // exact in every type, sums exact in float
  for (auto& row : c.key)
    for (float& x : row) x = small();
  for (auto& row : c.query)
    for (float& x : row) x = small() / 16;
  for (auto& row : c.value)
    for (float& x : row) x = small();
  for (auto& row : c.score)
    for (float& x : row) x = NAN;
  for (auto& row : c.out)
    for (float& x : row) x = NAN;
  const int32_t block[3] = {};
  const char* problem = run_host_block({.wave = Mma::kWave, .threads = Mma::kWave}, lane_body, &c, block, block);
  CHECK(problem == nullptr, "%s", problem ? problem : "");
  for (int q = 0; q < R::kRows; ++q) {
    float expected[R::kDims] = {};
    for (int k = 0; k < R::kPvKeys; ++k) {
      float score = 0;
      for (int d = 0; d < kDepth; ++d) score += c.key[k][d] * c.query[q][d];
      CHECK(c.score[k][q] == score, "score of key %d, query %d: %g, not %g", k, q, c.score[k][q], score);
      for (int d = 0; d < R::kDims; ++d) expected[d] += c.value[k][d] * to_float(from_float<TYPE>(score));
    }
    for (int d = 0; d < R::kDims; ++d)
      CHECK(c.out[q][d] == expected[d], "query %d dim %d: %g, not %g", q, d, c.out[q][d], expected[d]);
  }
}

int main() {
  operands();
  slots();
  statistics();
  dims<64>();
  dims<96>();
  dims<256>();
  attention();
  return failures != 0;
}
