// SPDX-License-Identifier: Apache-2.0
// Stores to global memory that a wave has not waited for: as late as hardware may do them, so that whoever reads too
// early reads what was there before. The wave's own loads see them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace amdgpu {

class LateStores {
 public:
  static constexpr uint32_t kMost = 16;  // bytes of one

  // `number` is that of the store on its counter; numbers rise.
  void put(uint32_t number, uint64_t address, const void* data, uint32_t bytes) {
    // Whether the address is one is known at once, not when the store is done.
    *reinterpret_cast<volatile const uint8_t*>(address + bytes - 1);
    *reinterpret_cast<volatile const uint8_t*>(address);
    Piece piece{address, number, bytes, {}};
    std::memcpy(piece.data, data, bytes);
    pieces_.push_back(piece);
    low_ = std::min(low_, address);
    high_ = std::max(high_, address + bytes);
  }

  bool empty() const { return pieces_.empty(); }

  // Does those whose number is at most `done`.
  void settle(uint32_t done) {
    size_t n = 0;
    while (n < pieces_.size() && pieces_[n].number <= done) {
      std::memcpy(reinterpret_cast<void*>(pieces_[n].address), pieces_[n].data, pieces_[n].bytes);
      ++n;
    }
    pieces_.erase(pieces_.begin(), pieces_.begin() + static_cast<ptrdiff_t>(n));
    if (pieces_.empty()) clear();
  }

  // Before the wave itself reads from [low, high).
  void read(uint64_t low, uint64_t high) {
    if (low < high_ && low_ < high) settle(~0u);
  }

  void clear() {
    pieces_.clear();
    low_ = ~uint64_t{0};
    high_ = 0;
  }

 private:
  struct Piece {
    uint64_t address;
    uint32_t number, bytes;
    uint8_t data[kMost];
  };
  std::vector<Piece> pieces_;
  uint64_t low_ = ~uint64_t{0}, high_ = 0;  // around all of them
};

}  // namespace amdgpu
