// SPDX-License-Identifier: Apache-2.0
// Masks as intervals of keys: prints what is wrong, a line each, and exits non-zero.
#include <algorithm>
#include <cstdio>
#include <vector>

#include "kernels/attention/problem/mask.h"

using namespace rocmforge;

static int failures = 0;

// A request's tokens, and whether its ranges have a say.
struct Case {
  Mask mask;
  Context request;
  bool listed;
  Ranges ranges;

  KeySpan span(int token) const {
    return listed ? keys_in_ranges(mask, ranges, kRequest, request, token) : Windowed::keys(mask, request, token);
  }
  // Whether a token sees a key, from the mask's definition.
  bool sees(int token, int key) const {
    const int own = request.before + token, window = mask.window;
    if (key < 0 || key >= request.keys()) return false;
    const bool near = window == 0 || own - key < window;
    bool seen = near && (request.causal() ? key <= own : window == 0 || key - own < window);
    for (int i = 0; listed && i < ranges.count; ++i) {
      const int32_t* const range = ranges.data + kRequest * ranges.request_stride + 2 * i;
      if (range[0] == 0 && range[1] == 0) continue;
      const bool together = range[0] <= own && own <= range[1] && range[0] <= key && key <= range[1];
      seen |= together && (near || !ranges.clamped);
    }
    return seen;
  }
  static constexpr int kRequest = 1;  // its ranges are not the first
};

static void check(bool holds, const char* what, const Case& of, int token) {
  if (holds) return;
  ++failures;
  std::printf("%s: window %d, causal %d, %d keys, %d before, token %d;", what, of.mask.window, of.request.causal(),
              of.request.keys(), of.request.before, token);
  for (int i = 0; of.listed && i < of.ranges.count; ++i) {
    const int32_t* const range = of.ranges.data + Case::kRequest * of.ranges.request_stride + 2 * i;
    std::printf(" %d to %d%s", range[0], range[1], of.ranges.clamped ? ", clamped" : "");
  }
  std::printf("\n");
}

// What tokens see, key by key; and that from token to token no end falls.
static void tokens(const Case& of, int query_len) {
  KeySpan before{0, -1};
  for (int token = 0; token < query_len; ++token) {
    const KeySpan span = of.span(token);
    for (int key = -2; key < of.request.keys() + 2; ++key)
      check(span.contains(key) == of.sees(token, key), "another key", of, token);
    check(span.first >= before.first && span.last >= before.last, "an end falls", of, token);
    before = span;
  }
}

static void windowed(int window, bool causal, int query_len, int keys) {
  tokens({.mask = {window, nullptr}, .request = Context::of(keys, query_len, causal, 0), .listed = false, .ranges = {}},
         query_len);
}

// Ranges of a request of `keys` keys that is computed in chunks: no, one or two of them, wherever they may lie, also
// beyond what is there as yet. What is behind them, and other requests', must not be read.
static void in_ranges(int window, bool causal, bool clamped, int query_len, int keys) {
  constexpr int kBeyond = 3, kStride = 7;
  for (int first = 0; first < keys + kBeyond; ++first)
    for (int last = first; last < keys + kBeyond; last += 2)
      for (int next = last + 1; next < keys + kBeyond; next += 3) {
        std::vector<int32_t> data(3 * kStride, 1 << 20);
        const int32_t listed[] = {first, last, next, next + (keys - next) / 2 + 1, 0, 0};
        std::copy(listed, listed + 6, data.begin() + Case::kRequest * kStride);
        for (int count = 0; count <= 3; ++count)
          tokens({.mask = {window, nullptr},
                  .request = Context::of(keys, query_len, causal, 0),
                  .listed = true,
                  .ranges = {data.data(), count, kStride, clamped}},
                 query_len);
      }
}

int main() {
  const int windows[] = {0, 1, 2, 5, 16, 40};
  for (int window : windows)
    for (bool causal : {true, false}) {
      for (int query_len = 1; query_len < 12; ++query_len)
        for (int keys = query_len; keys < query_len + 30; keys += 3) windowed(window, causal, query_len, keys);
      // Lengths that contradict each other: the first tokens see nothing, or, of full masks, what is near them.
      for (int keys = 0; keys < 6; ++keys) windowed(window, causal, 6, keys);
      // Prompts, and chunks of them.
      for (bool clamped : {false, true})
        for (int keys : {1, 4, 9, 13}) {
          in_ranges(window, causal, clamped, keys, keys);
          if (keys > 4) in_ranges(window, causal, clamped, 4, keys);
        }
    }
  // Far from zero, and no key: differences must not wrap round to a key that is seen.
  const KeySpan late{2147483000, 2147483600}, none{7, 6};
  const int outside[] = {-2147483647, -1, 0, 6, 7, 2147482999, 2147483601, 2147483647};
  for (int key : outside) {
    if (late.contains(key) || none.contains(key)) {
      ++failures;
      std::printf("key %d is in a span that does not have it\n", key);
    }
  }
  if (!late.contains(2147483000) || !late.contains(2147483600)) ++failures;
  return failures != 0;
}
