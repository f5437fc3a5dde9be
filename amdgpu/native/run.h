// SPDX-License-Identifier: Apache-2.0
// The loop that executes a wave's instructions, one by one.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "registry.h"
#include "timing.h"
#include "traffic.h"
#include "twin.h"
#include "wave.h"

namespace amdgpu {

inline std::string register_name(const Operand& o, int reg) {
  if (o.kind == Kind::kVector) return reg < 256 ? "v" + std::to_string(reg) : "a" + std::to_string(reg - 256);
  return "s" + std::to_string(reg);
}

// No operand may still wait for memory, but a load may replace what an older load of the same counter brings.
template <int L>
void check_waits(const Wave<L>& w, const Instruction& i) {
  for (int at = 0; at < i.operands; ++at) {
    const Operand& o = i.operand[at];
    if (o.kind != Kind::kVector && o.kind != Kind::kScalar) continue;
    const int first = o.kind == Kind::kVector ? Pending::vector_register(o.reg) : Pending::scalar_register(o.reg);
    for (int r = 0; r < o.count; ++r) {
      if (!w.pending.waits_for(first + r)) continue;
      const Counter waiting = w.pending.counter[first + r];
      const bool in_order = w.pending.unordered[static_cast<int>(waiting)] <= w.pending.done[static_cast<int>(waiting)];
      if (at < i.results && i.counter == waiting && in_order) continue;
      static constexpr const char* kNames[kCounters] = {"", "vector loads", "stores", "LDS", "scalar loads"};
      throw Fault(*w.program, i, w.number,
                  register_name(o, o.reg + r) + " is used before the load into it was waited for (counter of " +
                      kNames[static_cast<int>(waiting)] + ")");
    }
  }
}

template <int L>
struct Code {
  std::vector<Run<L>> run;  // by handler
  std::vector<Use> use;
};

template <int L>
const Code<L>& code() {
  static const Code<L> all = [] {
    Code<L> found;
    for (const Handler& h : handlers()) {
      found.run.push_back(run_of<L>(h));
      found.use.push_back(use_of(h.name));
    }
    return found;
  }();
  return all;
}

// Looks at instructions before they execute.
template <int L>
struct Observer {
  Observer(const Launch& what, uint32_t waves) : traffic(*what.program) {
    if (what.costs) timing.emplace(what.costs, waves);
  }
  void before(const Wave<L>& w, const Instruction& i, uint32_t row) {
    const uint32_t shared = traffic.count(w, i, row);
    if (timing) timing->step(w.number, i, row, shared);
  }
  TrafficCounter<L> traffic;
  std::optional<Timing> timing;
};

// Executes until the wave stops, by itself or after `most` instructions. The twin, if there is one, does the same.
template <int L, bool kTwin>
void run(Wave<L>& w, Wave<L>* twin, Observer<L>* observer, uint64_t most, uint64_t* counts) {
  const Code<L>& all = code<L>();
  const Instruction* rows = w.program->rows.data();
  w.stop = Stop::kNone;
  do {
    const Instruction& i = rows[w.pc];
    if (w.pending.busy) check_waits(w, i);
    if (observer) observer->before(w, i, w.pc);
    ++counts[w.pc++];
    if constexpr (kTwin) {
      const Use use = all.use[i.handler];
      if (use.of != Use::kNothing) compare_uses(w, *twin, i, use);
      twin->pc = w.pc;
      if (!use.once) all.run[i.handler](*twin, i);
      all.run[i.handler](w, i);
      if (use.once) copy_results(w, *twin, i);
    } else {
      all.run[i.handler](w, i);
    }
  } while (w.stop == Stop::kNone && --most > 0);
  if (w.stop == Stop::kNone) w.stop = Stop::kBudget;
}

}  // namespace amdgpu
