// SPDX-License-Identifier: Apache-2.0
// Which keys a row sees: one interval of its request's keys, for every mask there is. From one token of a request to
// the next neither end of the interval falls: plans and loops bound many rows by the first and the last of them.
#pragma once

#include "../../target/device.h"
#include "../args.h"

namespace rocmforge {

// Positions of keys, both ends included.
struct KeySpan {
  int first, last;

  // One subtraction and one comparison; no key is in it where last is below first by one.
  RF_DEVICE constexpr bool contains(int key) const {
    const auto begin = static_cast<uint32_t>(first);
    return static_cast<uint32_t>(key) - begin < static_cast<uint32_t>(last) + 1 - begin;
  }
};

// A request as masks see it: its keys, and how many of them precede the first query token.
struct Context {
  int keys, before;
};

// The one place that decides. A token whose own key is not among the request's sees none, where the mask is causal.
RF_DEVICE constexpr KeySpan token_keys(const Mask& mask, Context request, int token) {
  if (!mask.causal) return {0, request.keys - 1};
  const int own = max(request.before + token, -1);
  return {mask.window > 0 ? max(0, own - mask.window + 1) : 0, own};
}

// What some token of a run of tokens sees.
RF_DEVICE constexpr KeySpan run_keys(const Mask& mask, Context request, int first_token, int last_token) {
  return {token_keys(mask, request, first_token).first, token_keys(mask, request, last_token).last};
}

}  // namespace rocmforge
