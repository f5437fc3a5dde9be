// SPDX-License-Identifier: Apache-2.0
// Masks as intervals of keys: prints what is wrong, a line each, and exits non-zero.
#include <cstdio>

#include "kernels/attention/problem/mask.h"

using namespace rocmforge;

static int failures = 0;

static void check(bool holds, const char* what, Mask mask, Context request, int token) {
  if (holds) return;
  ++failures;
  std::printf("%s: window %d, causal %d, %d keys, %d before, token %d\n", what, mask.window, mask.causal, request.keys,
              request.before, token);
}

// What a token sees, key by key, from the mask's definition; and that from token to token no end falls.
static void tokens(Mask mask, int query_len, int keys) {
  const Context request{keys, keys - query_len};
  KeySpan before{0, -1};
  for (int token = 0; token < query_len; ++token) {
    const KeySpan span = token_keys(mask, request, token);
    const int own = request.before + token;
    for (int key = -2; key < keys + 2; ++key) {
      const bool newest = mask.causal ? key <= own : key < keys;
      const bool seen = key >= 0 && newest && (mask.window == 0 || key > own - mask.window);
      check(span.contains(key) == seen, "another key", mask, request, token);
    }
    check(span.first >= before.first && span.last >= before.last, "an end falls", mask, request, token);
    before = span;
    const KeySpan run = run_keys(mask, request, 0, token);
    check(run.first == token_keys(mask, request, 0).first && run.last == span.last, "a run", mask, request, token);
  }
}

int main() {
  const int windows[] = {0, 1, 2, 5, 16, 40};
  for (int window : windows)
    for (int query_len = 1; query_len < 12; ++query_len)
      for (int keys = query_len; keys < query_len + 30; keys += 3)
        tokens({.window = window, .causal = 1}, query_len, keys);
  // Lengths that contradict each other: the first tokens see nothing.
  tokens({.window = 0, .causal = 1}, 5, 2);
  tokens({.window = 3, .causal = 1}, 5, 2);
  // Full: of any lengths, none too.
  for (int keys = 0; keys < 40; keys += 3) tokens({.window = 0, .causal = 0}, 6, keys);
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
