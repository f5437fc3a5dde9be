// SPDX-License-Identifier: Apache-2.0
#include "timing.h"

#include <algorithm>

namespace amdgpu {

void Timing::step(int wave, const Instruction& i, uint32_t row, uint32_t shared) {
  WaveClock& c = clocks_[static_cast<size_t>(wave)];
  const Cost cost = costs_[row];
  if (i.handler == wait_handler_) {
    for (int counter = 1; counter < kCounters; ++counter) {
      const uint32_t left = static_cast<uint32_t>(i.offset) >> (8 * (counter - 1)) & 0xffu;
      const std::vector<uint64_t>& answered = c.answered[counter];
      if (left != 255 && answered.size() > left) until(c, answered[answered.size() - 1 - left], counter);
    }
  }
  const auto each_register = [](const Operand& o, auto&& what) {
    if (o.kind != Kind::kVector && o.kind != Kind::kScalar) return;
    const int first = o.kind == Kind::kVector ? Pending::vector_register(o.reg) : Pending::scalar_register(o.reg);
    for (int r = first; r < first + o.count; ++r) what(r);
  };
  for (int at = 0; at < i.operands; ++at) {
    each_register(i.operand[at], [&](int r) { until(c, c.ready[r], Stalls::kResult); });
  }
  until(c, c.free[cost.unit], Stalls::kUnit);
  const uint64_t busy_until = c.now + cost.busy + shared;
  c.free[cost.unit] = busy_until;
  if (i.counter == Counter::kNone) {
    const uint64_t ready = c.now + cost.latency;
    for (int at = 0; at < i.results; ++at) {
      each_register(i.operand[at], [&](int r) { c.ready[r] = ready; });
    }
  } else {
    std::vector<uint64_t>& answered = c.answered[static_cast<int>(i.counter)];
    const uint64_t answer = busy_until + cost.latency;
    answered.push_back(answered.empty() ? answer : std::max(answered.back(), answer));
  }
  c.now += cost.issue;
}

void Timing::meet(const std::vector<uint32_t>& waves) {
  uint64_t last = 0;
  for (const uint32_t n : waves) last = std::max(last, clocks_[n].now);
  for (const uint32_t n : waves) until(clocks_[n], last, Stalls::kBarrier);
}

uint64_t Timing::end() const {
  uint64_t last = 0;
  for (const WaveClock& c : clocks_) last = std::max(last, c.now);
  return last;
}

}  // namespace amdgpu
