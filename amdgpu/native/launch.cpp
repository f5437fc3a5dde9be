// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <mutex>
#include <thread>

#include "run.h"
#include "signals.h"
#include "worker.h"

namespace amdgpu {

namespace {

constexpr uint64_t kMostItems = 1024;  // of a workgroup

template <int L>
std::string launch(const Launch& what, const Schedule& schedule, int threads, uint64_t* counts, Observation& seen) {
  const uint64_t workgroups = uint64_t{what.grid[0]} * what.grid[1] * what.grid[2];
  if (schedule.counting && what.costs) seen.clocks.resize(workgroups);
  std::atomic<uint64_t> next{0};
  std::mutex mutex;
  std::string problem;
  const auto work = [&] {
    Worker<L> worker(what, schedule);
    for (uint64_t n = next++; n < workgroups; n = next++) {
      std::string wrong = worker.workgroup(n);
      if (!seen.clocks.empty()) seen.clocks[n] = worker.observer()->timing->end();
      if (wrong.empty()) continue;
      next = workgroups;
      char at[80];
      std::snprintf(at, sizeof(at), " (workgroup %llu)", static_cast<unsigned long long>(n));
      std::lock_guard lock(mutex);
      if (problem.empty()) problem = wrong + at;
    }
    std::lock_guard lock(mutex);
    for (size_t row = 0; row < worker.counts().size(); ++row) counts[row] += worker.counts()[row];
    if (!worker.observer()) return;
    seen.traffic.add(worker.observer()->traffic.traffic);
    if (worker.observer()->timing) seen.stalls.add(worker.observer()->timing->stalls);
  };
  const uint64_t helpers = std::min<uint64_t>(threads, workgroups) - 1;
  std::vector<std::thread> others;
  for (uint64_t t = 0; t < helpers; ++t) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return problem;
}

}  // namespace

std::string launch(const Launch& what, const Schedule& schedule, int threads, uint64_t* counts, Observation& seen) {
  if (uint64_t{what.grid[0]} * what.grid[1] * what.grid[2] == 0) return "";
  const uint64_t items = uint64_t{what.block[0]} * what.block[1] * what.block[2];
  if (items == 0 || items > kMostItems) {
    return what.program->kernel + ": a workgroup of " + std::to_string(items) + " threads; it may have 1 to " +
           std::to_string(kMostItems);
  }
  install_signal_handler();
  return what.program->entry.lanes == 64 ? launch<64>(what, schedule, threads, counts, seen)
                                         : launch<32>(what, schedule, threads, counts, seen);
}

template <int Lanes>
std::string run_alone(Wave<Lanes>& w, Workgroup& group) {
  install_signal_handler();
  std::vector<uint64_t> counts(w.program->rows.size());
  w.group = &group;
  w.pc = 0;
  w.number = 0;
  w.signalled = false;
  w.pending.reset();
  w.exec_changed();
  Guard guard;
  if (sigsetjmp(guard.jump, 1) != 0) return w.program->where(w.program->rows[w.pc - 1].line) + ": bad address";
  set_guard(&guard);
  std::string problem;
  try {
    do {
      run<Lanes, false>(w, nullptr, nullptr, ~uint64_t{0}, counts.data());
      group.pass_barrier();
    } while (w.stop != Stop::kEnd);
  } catch (const Fault& fault) {
    problem = fault.what();
  }
  set_guard(nullptr);
  return problem;
}

template std::string run_alone<32>(Wave<32>&, Workgroup&);
template std::string run_alone<64>(Wave<64>&, Workgroup&);

}  // namespace amdgpu
