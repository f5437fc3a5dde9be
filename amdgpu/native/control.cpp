// SPDX-License-Identifier: Apache-2.0
// Branches, waits, barriers and what a wave does to itself.
#include "handler.h"
#include "tables.h"
#include "wave.h"

namespace amdgpu {

namespace {

template <int L>
void nothing(Wave<L>&, const Instruction&) {}

template <int L>
void end(Wave<L>& w, const Instruction&) {
  w.stop = Stop::kEnd;
}

template <int L>
void branch(Wave<L>& w, const Instruction& i) {
  w.pc = static_cast<uint32_t>(i.offset);
}

enum class Condition { kScc, kVcc, kExec };

template <Condition C, bool Nonzero>
struct ConditionalBranch {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    const bool set = C == Condition::kScc   ? w.scc
                     : C == Condition::kVcc ? w.mask_at(scalar_register::kVcc) != 0
                                            : w.exec() != 0;
    if (set == Nonzero) w.pc = static_cast<uint32_t>(i.offset);
  }
};

// `offset` has a byte for each counter from kLoads on: how many operations may be outstanding; 255: any number.
template <int L>
void wait(Wave<L>& w, const Instruction& i) {
  for (int c = 1; c < kCounters; ++c) {
    const uint32_t left = static_cast<uint32_t>(i.offset) >> (8 * (c - 1)) & 0xffu;
    if (left != 255) w.pending.wait(static_cast<Counter>(c), left);
  }
}

// gfx12 parts a barrier in two. What counts for others is what was complete at the signal.
template <int L>
void signal_barrier(Wave<L>& w, const Instruction& i) {
  if (w.signalled) w.fail(i, "signals a barrier again without having waited at it");
  w.signalled = true;
  w.group->at_barrier[w.number] = w.pending.done[static_cast<int>(Counter::kShared)];
  // On gfx9 stores are counted with loads.
  w.group->stores_at_barrier[w.number] = L == 64 ? w.pending.issued[static_cast<int>(Counter::kLoads)]
                                                 : w.pending.done[static_cast<int>(Counter::kStores)];
}

template <int L>
void wait_at_barrier(Wave<L>& w, const Instruction& i) {
  if (!w.signalled) w.fail(i, "waits at a barrier that it has not signalled");
  w.signalled = false;
  w.stop = Stop::kBarrier;
}

template <int L>
void barrier(Wave<L>& w, const Instruction& i) {
  signal_barrier(w, i);
  wait_at_barrier(w, i);
}

// `offset`: of the instruction behind this one, from the kernel's start.
template <int L>
void get_pc(Wave<L>& w, const Instruction& i) {
  const uint64_t pc = w.program->base + static_cast<uint32_t>(i.offset);
  w.s[i.operand[0].reg] = static_cast<uint32_t>(pc);
  w.s[i.operand[0].reg + 1] = static_cast<uint32_t>(pc >> 32);
}

// Of caches, which there are none of; some raise a counter.
template <int L>
void cache_control(Wave<L>& w, const Instruction& i) {
  if (i.counter != Counter::kNone) w.pending.issue(i.counter);
}

}  // namespace

Handlers control() {
  using enum Condition;
  static const Handler table[] = {
      {"s_nop", nothing<32>, nothing<64>, ":", Flow::kOwn},
      {"s_endpgm", end<32>, end<64>, ":", Flow::kOwn},
      {"s_branch", branch<32>, branch<64>, ":", Flow::kOwn},
      {"s_cbranch_scc0", ConditionalBranch<kScc, false>::run<32>, ConditionalBranch<kScc, false>::run<64>, ":",
       Flow::kOwn},
      {"s_cbranch_scc1", ConditionalBranch<kScc, true>::run<32>, ConditionalBranch<kScc, true>::run<64>, ":",
       Flow::kOwn},
      {"s_cbranch_vccz", ConditionalBranch<kVcc, false>::run<32>, ConditionalBranch<kVcc, false>::run<64>, ":",
       Flow::kOwn},
      {"s_cbranch_vccnz", ConditionalBranch<kVcc, true>::run<32>, ConditionalBranch<kVcc, true>::run<64>, ":",
       Flow::kOwn},
      {"s_cbranch_execz", ConditionalBranch<kExec, false>::run<32>, ConditionalBranch<kExec, false>::run<64>, ":",
       Flow::kOwn},
      {"s_cbranch_execnz", ConditionalBranch<kExec, true>::run<32>, ConditionalBranch<kExec, true>::run<64>, ":",
       Flow::kOwn},
      {"s_waitcnt", wait<32>, wait<64>, ":", Flow::kOwn},
      {"s_barrier", barrier<32>, barrier<64>, ":", Flow::kOwn},
      {"s_barrier_signal", signal_barrier<32>, signal_barrier<64>, ":", Flow::kOwn},
      {"s_barrier_wait", wait_at_barrier<32>, wait_at_barrier<64>, ":", Flow::kOwn},
      {"s_getpc_b64", get_pc<32>, get_pc<64>, "U:", Flow::kOwn},
      {"cache_control", cache_control<32>, cache_control<64>, ":", Flow::kOwn},
  };
  return table;
}

}  // namespace amdgpu
