// SPDX-License-Identifier: Apache-2.0
// What becomes of the product of a query and a key before the softmax. A score function is a struct with
//   factor(args)                  turns scores into log2 units
//   kReshapes                     whether shape() does anything; it costs nothing where it does not
//   Row, row(args, head, last)    what it keeps of a row of query head `head` whose query stands at key `last`
//   shape(args, row, key, s)      the score of a key, of the product s
#pragma once

#include "../../target/device.h"
#include "../args.h"

namespace rocmforge {

template <class S>
concept ScoreFunction = requires(const SoftmaxArgs& args, typename S::Row row) {
  S::kReshapes;
  { S::factor(args) } -> SameAs<float>;
  { S::row(args, 0, 0) } -> SameAs<typename S::Row>;
  { S::shape(args, row, 0, 0.0f) } -> SameAs<float>;
};

// The scaled product (Vaswani et al. 2017, eq. 1).
struct Plain {
  static constexpr bool kReshapes = false;
  struct Row {};

  RF_DEVICE static float factor(const SoftmaxArgs& args) { return args.scale_log2; }
  RF_DEVICE static constexpr Row row(const SoftmaxArgs&, int, int) { return {}; }
  RF_DEVICE static constexpr float shape(const SoftmaxArgs&, Row, int, float product) { return product; }
};

}  // namespace rocmforge
