// SPDX-License-Identifier: Apache-2.0
// What becomes of the product of a query and a key before the softmax. A score function is a struct with
//   factor(args)                  turns scores into log2 units
//   kReshapes                     whether shape() does anything; it costs nothing where it does not
//   Row, row(args, head, last)    what it keeps of a row of query head `head` whose query stands at key `last`
//   shape(args, row, key, s)      the score of a key, of the product s
// One whose Row has `own`, the query's key, may have shape_at(args, row, distance, s) instead: of the key so many
// behind that one, a whole number. As a float it costs an addition from key to key.
#pragma once

#include "../../target/device.h"
#include "../args.h"

namespace rocmforge {

template <class S>
concept ScoreFunction = requires(const SoftmaxArgs& args, typename S::Row row) {
  S::kReshapes;
  { S::factor(args) } -> SameAs<float>;
  { S::row(args, 0, 0) } -> SameAs<typename S::Row>;
  requires(
      requires {
        { S::shape(args, row, 0, 0.0f) } -> SameAs<float>;
      } ||
      requires {
        { row.own } -> SameAs<int&>;
        { S::shape_at(args, row, 0.0f, 0.0f) } -> SameAs<float>;
      });
};

template <class S>
concept ByDistance = requires(const SoftmaxArgs& args, typename S::Row row) { S::shape_at(args, row, 0.0f, 0.0f); };

// The scaled product (Vaswani et al. 2017, eq. 1).
struct Plain {
  static constexpr bool kReshapes = false;
  struct Row {};

  RF_DEVICE static float factor(const SoftmaxArgs& args) { return args.scale_log2; }
  RF_DEVICE static constexpr Row row(const SoftmaxArgs&, int, int) { return {}; }
  RF_DEVICE static constexpr float shape(const SoftmaxArgs&, Row, int, float product) { return product; }
};

// With a soft cap: cap * tanh(scaled product / cap), as in Gemma 2 (arXiv 2408.00118, section 2).
struct Capped {
  static constexpr bool kReshapes = true;
  struct Row {};

  RF_DEVICE static float factor(const SoftmaxArgs& args) { return args.cap_log2; }
  RF_DEVICE static constexpr Row row(const SoftmaxArgs&, int, int) { return {}; }
  RF_DEVICE static float shape(const SoftmaxArgs& args, Row, int, float product) {
    return tanh_of_power(product * args.cap_power);
  }
};

// With a bias that grows by the head's slope from key to key and is zero at the query's own (ALiBi, arXiv 2108.12409).
struct Biased {
  static constexpr bool kReshapes = true;
  struct Row {
    float slope;  // in products
    int own;
  };

  RF_DEVICE static float factor(const SoftmaxArgs& args) { return args.scale_log2; }
  RF_DEVICE static Row row(const SoftmaxArgs& args, int head, int last) {
    return {args.slopes[head] * args.per_scale, last};
  }
  RF_DEVICE static float shape_at(const SoftmaxArgs&, Row row, float distance, float product) {
    return product + row.slope * distance;
  }
};

// The bias of the root of the distance, and none for keys after the query's own (ALiBi of Step-1).
struct Rooted : Biased {
  RF_DEVICE static float shape_at(const SoftmaxArgs&, Row row, float distance, float product) {
    return product - row.slope * sqrt(max(-distance, 0.0f));
  }
};

}  // namespace rocmforge
