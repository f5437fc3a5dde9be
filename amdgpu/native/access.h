// SPDX-License-Identifier: Apache-2.0
// What a lane's access to memory moves, and how that lies in registers.
#pragma once

#include <cstdint>
#include <cstring>

#include "wave.h"

namespace amdgpu {

// Into (or from) which half of a register 16 bits or fewer go; the other half stays. kWord: they are extended to 32.
enum class Half16 : uint8_t { kWord, kLow, kHigh };

template <int Bytes, bool Signed = false, Half16 Where = Half16::kWord>
struct Access {
  static constexpr int kBytes = Bytes, kRegisters = Bytes < 4 ? 1 : Bytes / 4;

  static void fetch(uint32_t* to, const void* from) {
    if constexpr (Bytes < 4) *to = 0;  // the bytes beyond
    std::memcpy(to, from, Bytes);
  }

  static void put(void* to, const uint32_t* from) { std::memcpy(to, from, Bytes); }

  static uint32_t extended(uint32_t word) {
    if constexpr (!Signed || Bytes >= 4) return word;
    else return static_cast<uint32_t>(static_cast<int32_t>(word << (32 - 8 * Bytes)) >> (32 - 8 * Bytes));
  }

  static uint32_t placed(uint32_t word, uint32_t old) {
    word = extended(word);
    if constexpr (Where == Half16::kLow) return (old & 0xffff0000u) | (word & 0xffffu);
    else if constexpr (Where == Half16::kHigh) return (old & 0xffffu) | word << 16;
    else return word;
  }
};

// What all lanes move, before it is in registers, or when it was read from them. Its constructor does nothing.
template <class A, int L>
struct Staged {
  Staged() {}  // NOLINT
  alignas(64) uint32_t lane[L][A::kRegisters];
};

template <class A, int L>
void to_registers(Wave<L>& w, int reg, const Staged<A, L>& staged) {
  for (int c = 0; c < A::kRegisters; ++c) {
    uint32_t* to = w.v[reg + c];
    for (int l = 0; l < L; ++l) {
      const uint32_t word = A::placed(staged.lane[l][c], to[l]);
      to[l] = (word & w.active[l]) | (to[l] & ~w.active[l]);
    }
  }
}

template <class A, int L>
void from_registers(const Wave<L>& w, int reg, Staged<A, L>& staged, Half16 where = Half16::kWord) {
  const int shift = where == Half16::kHigh ? 16 : 0;
  for (int c = 0; c < A::kRegisters; ++c)
    for (int l = 0; l < L; ++l) staged.lane[l][c] = w.v[reg + c][l] >> shift;
}

// A load of the instruction's counter begins, which writes `count` registers.
template <int L>
void begin_load(Wave<L>& w, const Instruction& i, int reg, int count) {
  w.pending.load(i.counter, w.pending.issue(i.counter), Pending::vector_register(reg), count);
}

}  // namespace amdgpu
