// SPDX-License-Identifier: Apache-2.0
// What waves of a workgroup may not do to each other in LDS, found by the shadow of each word (workgroup.h). Within a
// wave LDS operations happen in order. Between waves, one comes before the other if its wave had waited for it when it
// reached a barrier that both have passed; else two accesses of a byte, not both of them reads, are a race. Atomics
// among themselves are none. Of waves that write different bytes of one word the latest is remembered.
#pragma once

#include <cstdint>
#include <string>

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

// The shadow of one word, as a wave sees it that is about to do operation `number` on some of its bytes.
struct View {
  uint8_t me;
  uint32_t number;
  const uint32_t* visible;

  bool unseen(uint8_t wave, SharedWord::Operation operation) const {
    return wave != SharedWord::kNobody && operation.number > visible[wave];
  }
  bool conflicts(uint8_t wave, SharedWord::Operation operation, uint32_t bytes) const {
    return wave != me && unseen(wave, operation) && (operation.bytes & bytes);
  }
  // As what this wave did; `before`: what it did last, if that was its.
  SharedWord::Operation mine(SharedWord::Operation before, bool was_mine, uint32_t bytes) const {
    return {number, was_mine && unseen(me, before) ? before.bytes | bytes : bytes};
  }

  // Of several readers two are kept, of different waves: whoever writes, one of them is another wave. One that is
  // behind a barrier is the first to be dropped.
  void read(SharedWord& s, uint32_t bytes) const {
    if (s.reader == me) {
      s.read = mine(s.read, true, bytes);
      return;
    }
    const SharedWord::Operation now = mine(s.other_read, s.other_reader == me, bytes);
    if (s.other_reader == me || !unseen(s.other_reader, s.other_read) || unseen(s.reader, s.read)) {
      s.other_reader = s.reader, s.other_read = s.read;
    }
    s.reader = me, s.read = now;
  }
};

}  // namespace shared_check

// What the active lanes do to some bytes of LDS each, as operation `number` of the wave.
template <SharedUse Use, int Bytes, int L>
void check_shared(Wave<L>& w, const Instruction& i, const uint32_t (&address)[L], uint32_t number) {
  if (!w.group->checked) return;
  SharedWord* words = w.group->words.data();
  const shared_check::View view{static_cast<uint8_t>(w.number), number, w.group->visible.data()};
  for (int l = 0; l < L; ++l) {
    if (!w.active[l]) continue;
    const uint32_t begin = address[l], end = begin + Bytes;
    for (uint32_t word = begin / 4; word < (end + 3) / 4; ++word) {
      SharedWord& s = words[word];
      uint32_t bytes = 15;
      if (begin > 4 * word) bytes &= 15u << (begin - 4 * word);
      if (end < 4 * word + 4) bytes &= 15u >> (4 * word + 4 - end);
      if (view.conflicts(s.writer, s.write, bytes) && !(Use == SharedUse::kAtomic && s.atomic)) {
        shared_check::race(w, i, l, 4 * word, Use == SharedUse::kRead ? "reads" : "writes", s.writer, "wrote");
      }
      if constexpr (Use == SharedUse::kRead) {
        view.read(s, bytes);
      } else {
        if (view.conflicts(s.reader, s.read, bytes)) shared_check::race(w, i, l, 4 * word, "writes", s.reader, "read");
        if (view.conflicts(s.other_reader, s.other_read, bytes)) {
          shared_check::race(w, i, l, 4 * word, "writes", s.other_reader, "read");
        }
        s.write = view.mine(s.write, s.writer == view.me, bytes);
        s.writer = view.me, s.atomic = Use == SharedUse::kAtomic;
      }
    }
  }
}

}  // namespace amdgpu
