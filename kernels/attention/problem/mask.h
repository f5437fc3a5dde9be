// SPDX-License-Identifier: Apache-2.0
// Which keys a row sees: for every mask there is one interval of the request's keys. From one token of a request to the
// next neither end of the interval falls; plans and loops rely on it to bound many rows by the first and the last.
#pragma once

#include "../../target/device.h"

namespace rocmforge {

// Positions of keys, both ends included.
struct KeySpan {
  int first, last;
};

// What a run of a request's tokens sees.
RF_DEVICE constexpr KeySpan key_span(int first_token, int last_token, int query_len, int seq_len, int window) {
  const int before = seq_len - query_len;  // keys that precede the first query token
  const int first = window > 0 ? max(0, before + first_token - window + 1) : 0;
  return {first, before + last_token};
}

}  // namespace rocmforge
