// SPDX-License-Identifier: Apache-2.0
// Which keys a row sees: one interval of its request's keys, for every mask there is. From one token of a request to
// the next neither end of the interval falls: plans and loops bound many rows by the first and the last of them.
// A mask function is a struct with keys(mask, request, token), the interval of a token.
#pragma once

#include "../../target/device.h"
#include "../../target/vec.h"
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

// A request as masks see it: its keys, how many of them precede the first query token, that token's number in the
// batch, and whether tokens see no keys after their own. In three words, as scalar registers are short.
struct Context {
  int keys_or_not;  // ~ of them where the request is not causal
  int before, first_token;

  RF_DEVICE static constexpr Context of(int keys, int queries, bool causal, int first_token) {
    return {causal ? keys : ~keys, keys - queries, first_token};
  }
  RF_DEVICE constexpr bool causal() const { return keys_or_not >= 0; }
  RF_DEVICE constexpr int keys() const { return causal() ? keys_or_not : ~keys_or_not; }
};

template <class M>
concept MaskFunction = requires(const Mask& mask, const Context& request) {
  { M::keys(mask, request, 0) } -> SameAs<KeySpan>;
};

// All keys, or those in a window that ends with the token's own key or, where the request is not causal, reaches as far
// to its other side. A token whose own key is not among the request's sees none, where that is causal.
struct Windowed {
  RF_DEVICE static constexpr KeySpan keys(const Mask& mask, const Context& request, int token) {
    const int own = request.before + token, after = request.keys() - 1 - own;
    const int reach = mask.window > 0 ? mask.window - 1 : 0x7fffffff;
    const int last = own + min(request.causal() ? 0 : reach, after);
    return {max(own, reach) - reach, max(last, -1)};
  }
};

// What the plan has listed token by token.
struct Listed {
  RF_DEVICE static KeySpan keys(const Mask& mask, const Context& request, int token) {
    const auto span = load_vec<int32_t, 2>(mask.spans + 2 * (int64_t{request.first_token} + token));
    return {span[0], span[1]};
  }
};

// What a token sees that may lie within a range (Ranges) of its request's.
RF_DEVICE constexpr KeySpan keys_in_ranges(const Mask& mask, const Ranges& ranges, int number, const Context& request,
                                           int token) {
  KeySpan seen = Windowed::keys(mask, request, token);
  const int own = request.before + token;
  for (int i = 0; i < ranges.count; ++i) {
    const int32_t* const range = ranges.data + int64_t{number} * ranges.request_stride + 2 * i;
    if (own < range[0] || own > range[1]) continue;
    if (!ranges.clamped) seen.first = min(seen.first, range[0]);
    seen.last = min(max(seen.last, range[1]), request.keys() - 1);
  }
  return seen;
}

}  // namespace rocmforge
