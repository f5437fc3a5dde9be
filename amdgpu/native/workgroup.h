// SPDX-License-Identifier: Apache-2.0
// The waves of a workgroup and what they share.
#pragma once

#include <cstdint>
#include <vector>

#include "global_stores.h"

namespace amdgpu {

// Who touched a word of LDS last; see shared_checks.h. An access is visible to other waves once its wave waited for it
// and then passed a barrier.
struct SharedWord {
  // Which operation of a wave it was, and on which bytes, a bit each. Number 0: there was none.
  struct Operation {
    uint32_t number : 28, bytes : 4;
  };
  uint8_t writer = 0, reader = 0, other_reader = 0;  // waves; the readers are the two latest
  bool atomic = false;                               // the writer's operation was
  Operation write{}, read{}, other_read{};
};

class Workgroup {
 public:
  std::vector<uint8_t> shared;   // LDS
  std::vector<SharedWord> words;  // a shadow of it
  GlobalStores stores;
  // By wave: its LDS operations up to this one are behind a barrier.
  std::vector<uint32_t> visible;
  // By wave: of its LDS operations and of its stores, those complete when it reached the barrier.
  std::vector<uint32_t> at_barrier, stores_at_barrier;
  uint32_t index[3];
  bool checked = true;  // races and the like are looked for

  // Before `waves` waves begin.
  void begin(size_t waves) {
    words.assign((shared.size() + 3) / 4, {});
    visible.assign(waves, 0);
    at_barrier.assign(waves, 0);
    stores_at_barrier.assign(waves, 0);
    stores.clear();
  }

  bool shares_memory() const { return visible.size() > 1; }

  // All waves have reached the barrier.
  void pass_barrier() {
    visible = at_barrier;
    stores.pass(stores_at_barrier);
  }
};

}  // namespace amdgpu
