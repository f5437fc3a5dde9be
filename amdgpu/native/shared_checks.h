// SPDX-License-Identifier: Apache-2.0
// What waves of a workgroup may not do to each other in LDS, found by the shadow of each word (workgroup.h). Within a
// wave LDS operations happen in order. Between waves, one comes before the other if its wave had waited for it when it
// reached a barrier that both have passed; else two accesses of a byte, not both of them reads, are a race. Atomics
// among themselves are none. Of waves that write different bytes of one word the latest is remembered.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

#include "wave.h"

namespace amdgpu {

enum class SharedUse : uint8_t { kRead, kWrite, kAtomic };

namespace shared_check {

template <int L>
[[noreturn, gnu::noinline]] void race(const Wave<L>& w, const Instruction& i, int lane, uint32_t address,
                                      const char* now, int other, const char* before) {
  w.fail(i, "race: wave " + std::to_string(w.number) + ", lane " + std::to_string(lane) + " " + now + " LDS address " +
                std::to_string(address) + ", which wave " + std::to_string(other) + " " + before +
                ": no barrier is between, or wave " + std::to_string(other) + " did not wait for that before it");
}

// How a wave sees shadows when it is about to do operation `number`.
struct View {
  static constexpr int kWaves = 32;  // of a workgroup, at most

  uint8_t me;
  uint32_t number, mine_visible;
  uint32_t visible[kWaves];  // as the workgroup's, but of this wave everything is

  template <int L>
  View(const Wave<L>& w, uint32_t operation) : me(static_cast<uint8_t>(w.number)), number(operation) {
    std::copy(w.group->visible.begin(), w.group->visible.end(), visible);
    mine_visible = std::exchange(visible[me], ~0u);
  }

  bool conflicts(uint8_t wave, SharedWord::Operation operation, uint32_t bytes) const {
    return operation.number > visible[wave] && (operation.bytes & bytes);
  }
  // As what this wave does, which may have done something to other bytes before.
  SharedWord::Operation with(SharedWord::Operation before, bool mine, uint32_t bytes) const {
    return {number, mine && before.number > mine_visible ? before.bytes | bytes : bytes};
  }

  // Of several readers two are kept, of different waves: whoever writes, one of them is another wave. One that is
  // behind a barrier is the first to be dropped.
  void read(SharedWord& s, uint32_t bytes) const {
    if (s.reader == me) {
      s.read = with(s.read, true, bytes);
      return;
    }
    const SharedWord::Operation now = with(s.other_read, s.other_reader == me, bytes);
    if (s.other_reader == me || s.other_read.number <= visible[s.other_reader] || s.read.number > visible[s.reader]) {
      s.other_reader = s.reader, s.other_read = s.read;
    }
    s.reader = me, s.read = now;
  }
};

template <SharedUse Use, int L>
[[gnu::always_inline]] inline void check_word(const Wave<L>& w, const Instruction& i, const View& view, int lane,
                                              SharedWord* words, uint32_t word, uint32_t bytes) {
  SharedWord& s = words[word];
  if (view.conflicts(s.writer, s.write, bytes) && !(Use == SharedUse::kAtomic && s.atomic)) {
    race(w, i, lane, 4 * word, Use == SharedUse::kRead ? "reads" : "writes", s.writer, "wrote");
  }
  if constexpr (Use == SharedUse::kRead) {
    view.read(s, bytes);
  } else {
    if (view.conflicts(s.reader, s.read, bytes)) race(w, i, lane, 4 * word, "writes", s.reader, "read");
    if (view.conflicts(s.other_reader, s.other_read, bytes)) {
      race(w, i, lane, 4 * word, "writes", s.other_reader, "read");
    }
    s.write = view.with(s.write, s.writer == view.me, bytes);
    s.writer = view.me, s.atomic = Use == SharedUse::kAtomic;
  }
}

}  // namespace shared_check

// What the active lanes do to some bytes of LDS each, as operation `number` of the wave.
template <SharedUse Use, int Bytes, int L>
void check_shared(Wave<L>& w, const Instruction& i, const uint32_t (&address)[L], uint32_t number) {
  if (!w.group->checked) return;
  const shared_check::View view(w, number);
  SharedWord* const words = w.group->words.data();
  for (int l = 0; l < L; ++l) {
    if (!w.active[l]) continue;
    const uint32_t begin = address[l], end = begin + Bytes;
    if (Bytes % 4 == 0 && begin % 4 == 0) {
      for (uint32_t n = 0; n < Bytes / 4; ++n) shared_check::check_word<Use>(w, i, view, l, words, begin / 4 + n, 15);
      continue;
    }
    for (uint32_t word = begin / 4; word < (end + 3) / 4; ++word) {
      uint32_t bytes = 15;
      if (begin > 4 * word) bytes &= 15u << (begin - 4 * word);
      if (end < 4 * word + 4) bytes &= 15u >> (4 * word + 4 - end);
      shared_check::check_word<Use>(w, i, view, l, words, word, bytes);
    }
  }
}

}  // namespace amdgpu
