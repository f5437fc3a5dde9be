// SPDX-License-Identifier: Apache-2.0
// What waves of a workgroup may not do to each other in LDS, found by the shadow of each word (workgroup.h). Within a
// wave LDS operations happen in order. Between waves, one comes before the other if its wave had waited for it when it
// reached a barrier that both have passed; else two accesses of a word, not both of them reads, are a race. Atomics
// among themselves are none.
#pragma once

#include <cstdint>
#include <string>

#include "wave.h"

namespace amdgpu {

enum class SharedUse : uint8_t { kRead, kWrite, kAtomic };

namespace shared_check {

template <int L>
[[noreturn, gnu::noinline]] void race(const Wave<L>& w, const Instruction& i, int lane, uint32_t address, const char* now,
                                      int other, const char* before) {
  w.fail(i, "race: wave " + std::to_string(w.number) + ", lane " + std::to_string(lane) + " " + now + " LDS address " +
                std::to_string(address) + ", which wave " + std::to_string(other) + " " + before +
                ": no barrier is between, or wave " + std::to_string(other) + " did not wait for that before it");
}

// Of several readers two are kept, of different waves: whoever writes, one of them is another wave. One that is behind
// a barrier is the first to be dropped.
inline void add_reader(SharedWord& s, uint8_t wave, uint32_t number, const uint32_t* visible) {
  if (s.reader == wave) {
    s.read = number;
    return;
  }
  if (s.other_reader != wave) {
    const bool keep_other = s.reader != SharedWord::kNobody && s.other_reader != SharedWord::kNobody &&
                            s.read <= visible[s.reader] && s.other_read > visible[s.other_reader];
    if (!keep_other) s.other_reader = s.reader, s.other_read = s.read;
  } else {
    s.other_reader = s.reader, s.other_read = s.read;
  }
  s.reader = wave, s.read = number;
}

}  // namespace shared_check

// What the active lanes do to `bytes` of LDS each, as operation `number` of the wave.
template <SharedUse Use, int Bytes, int L>
void check_shared(Wave<L>& w, const Instruction& i, const uint32_t (&address)[L], uint32_t number) {
  using namespace shared_check;  // NOLINT
  if (!w.group->checked) return;
  SharedWord* words = w.group->words.data();
  const uint32_t* visible = w.group->visible.data();
  const auto me = static_cast<uint8_t>(w.number);
  const auto unseen = [&](uint8_t wave, uint32_t operation) {
    return wave != me && wave != SharedWord::kNobody && operation > visible[wave];
  };
  for (int l = 0; l < L; ++l) {
    if (!w.active[l]) continue;
    for (uint32_t word = address[l] / 4; word < (address[l] + Bytes + 3) / 4; ++word) {
      SharedWord& s = words[word];
      if (unseen(s.writer, s.write) && !(Use == SharedUse::kAtomic && s.atomic)) {
        race(w, i, l, 4 * word, Use == SharedUse::kRead ? "reads" : "writes", s.writer, "wrote");
      }
      if constexpr (Use == SharedUse::kRead) {
        add_reader(s, me, number, visible);
      } else {
        if (unseen(s.reader, s.read)) race(w, i, l, 4 * word, "writes", s.reader, "read");
        if (unseen(s.other_reader, s.other_read)) race(w, i, l, 4 * word, "writes", s.other_reader, "read");
        s.writer = me, s.write = number, s.atomic = Use == SharedUse::kAtomic;
      }
    }
  }
}

}  // namespace amdgpu
