// SPDX-License-Identifier: Apache-2.0
// Stores to global memory that other waves of the workgroup may not count on yet. Another wave may read what was stored
// behind a barrier that the storing wave reached after waiting for the store; on gfx9, after issuing it, for there a
// workgroup's waves reach one cache in order. To read it before that is a race. That two waves store the same word is
// not looked for.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace amdgpu {

class GlobalStores {
 public:
  // The active lanes' stores of `bytes` each, operation `number` of the wave's counter of stores.
  template <int L>
  void add(int wave, uint32_t number, const uint64_t (&address)[L], const uint32_t (&active)[L], uint32_t bytes) {
    Store store{
        .low = ~uint64_t{0}, .high = 0, .number = number, .wave = wave, .bytes = bytes, .lanes = 0, .address = {}};
    for (int l = 0; l < L; ++l) {
      if (!active[l]) continue;
      store.address[store.lanes++] = address[l];
      store.low = std::min(store.low, address[l]);
      store.high = std::max(store.high, address[l] + bytes);
    }
    if (store.lanes == 0) return;
    low_ = std::min(low_, store.low);
    high_ = std::max(high_, store.high);
    stores_.push_back(store);
  }

  bool none() const { return stores_.empty(); }

  // Whether a read of `bytes` at an address, by a wave, races with another one's store.
  bool race(int wave, uint64_t address, uint32_t bytes) const {
    if (address >= high_ || address + bytes <= low_) return false;
    for (const Store& s : stores_) {
      if (s.wave == wave || address >= s.high || address + bytes <= s.low) continue;
      for (uint32_t n = 0; n < s.lanes; ++n) {
        if (address < s.address[n] + s.bytes && s.address[n] < address + bytes) return true;
      }
    }
    return false;
  }

  // A barrier was passed, which each wave reached when its stores up to `complete[wave]` counted as done.
  void pass(const std::vector<uint32_t>& complete) {
    if (stores_.empty()) return;
    std::erase_if(stores_, [&](const Store& s) { return s.number <= complete[static_cast<size_t>(s.wave)]; });
    low_ = ~uint64_t{0};
    high_ = 0;
    for (const Store& s : stores_) low_ = std::min(low_, s.low), high_ = std::max(high_, s.high);
  }

  void clear() {
    stores_.clear();
    low_ = ~uint64_t{0};
    high_ = 0;
  }

 private:
  struct Store {
    uint64_t low, high;  // around all lanes
    uint32_t number;
    int wave;
    uint32_t bytes, lanes;
    uint64_t address[64];
  };
  std::vector<Store> stores_;
  uint64_t low_ = ~uint64_t{0}, high_ = 0;  // around all stores
};

}  // namespace amdgpu
