// SPDX-License-Identifier: Apache-2.0
#include "launch.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <thread>

#include "checks.h"
#include "registry.h"
#include "signals.h"
#include "twin.h"

namespace amdgpu {

namespace {

constexpr uint64_t kMostItems = 1024;  // of a workgroup
constexpr uint32_t kPoison = 0x7fff7fff;  // NaN as a float of 32, 16 (both kinds) and 8 bits, and no sensible address

// What a twin finds in its place: negative where that is positive, small where that is large, and random.
class TwinPoison {
 public:
  explicit TwinPoison(uint32_t seed) : random_(seed) {}

  uint32_t operator()() {
    const auto bits = static_cast<uint32_t>(random_());
    return bits & 1 ? ~kPoison : bits & 2 ? bits >> 28 : bits ^ bits << 16;
  }

 private:
  std::minstd_rand random_;
};

std::string register_name(const Operand& o, int reg) {
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

// Waves of finished workgroups, for the next ones: they are large, and fresh memory is slow the first time.
template <int L>
class Spares {
 public:
  using Waves = std::vector<std::unique_ptr<Wave<L>>>;

  static Waves take(uint32_t count) {
    Waves taken;
    std::lock_guard lock(mutex_);
    while (taken.size() < count) {
      if (spare_.empty()) {
        taken.push_back(std::make_unique_for_overwrite<Wave<L>>());
      } else {
        taken.push_back(std::move(spare_.back()));
        spare_.pop_back();
      }
    }
    return taken;
  }

  static void give_back(Waves waves) {
    std::lock_guard lock(mutex_);
    std::move(waves.begin(), waves.end(), std::back_inserter(spare_));
  }

 private:
  static inline std::mutex mutex_;
  static inline Waves spare_;
};

// What a host thread needs to execute one workgroup after the other.
template <int L>
class Worker {
 public:
  Worker(const Launch& what, const Schedule& schedule) : what_(what), program_(*what.program), schedule_(schedule) {
    const uint32_t threads = what.block[0] * what.block[1] * what.block[2];
    count_ = (threads + L - 1) / L;
    waves_ = Spares<L>::take(count_);
    if (schedule.twins) twins_ = Spares<L>::take(count_);
    if (schedule.counting) observer_.emplace(what, count_);
    counts_.resize(program_.rows.size());
    group_.shared.resize(program_.entry.shared_bytes + what.dynamic_shared);
    twin_group_.shared.resize(group_.shared.size());
    order_.resize(count_);
  }

  ~Worker() {
    Spares<L>::give_back(std::move(waves_));
    Spares<L>::give_back(std::move(twins_));
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  const std::vector<uint64_t>& counts() const { return counts_; }
  const std::optional<Observer<L>>& observer() const { return observer_; }

  // Returns what went wrong.
  std::string workgroup(uint64_t number) {
    set_up(number);
    Guard guard;
    if (sigsetjmp(guard.jump, 1) != 0) return wrong_access(guard.address);
    set_guard(&guard);
    std::string problem;
    try {
      if (observer_ && observer_->timing) observer_->timing->start();
      run_waves();
    } catch (const Fault& fault) {
      problem = fault.what();
    }
    set_guard(nullptr);
    return problem;
  }

 private:
  void set_up(uint64_t number) {
    set_up(group_, number);
    std::fill_n(reinterpret_cast<uint16_t*>(group_.shared.data()), group_.shared.size() / 2, kPoison & 0xffff);
    const uint32_t seed = 1 + 100 * (schedule_.quantum + 7 * schedule_.order);  // another one for each schedule
    if (!twins_.empty()) {
      set_up(twin_group_, number);
      TwinPoison poison(seed + count_);
      auto* const words = reinterpret_cast<uint32_t*>(twin_group_.shared.data());
      std::generate(words, words + twin_group_.shared.size() / 4, [&] { return poison(); });
    }
    std::iota(order_.begin(), order_.end(), 0u);
    if (schedule_.order == Schedule::kReverse) std::reverse(order_.begin(), order_.end());
    if (schedule_.order == Schedule::kShuffled) {
      std::mt19937 random(schedule_.seed + static_cast<uint32_t>(number));
      std::shuffle(order_.begin(), order_.end(), random);
    }
    for (uint32_t n = 0; n < count_; ++n) {
      Wave<L>& w = *waves_[n];
      const int vectors = program_.entry.accumulators_at * L;
      const int accumulators = (program_.entry.vector_registers - program_.entry.accumulators_at) * L;
      std::fill_n(w.v[0], vectors, kPoison);
      std::fill_n(w.v[256], accumulators, kPoison);
      std::fill_n(w.s, scalar_register::kCount, kPoison);
      std::fill_n(w.unwritten, L, kPoison);
      set_up(w, group_, n);
      if (twins_.empty()) continue;
      TwinPoison poison(seed + n);
      Wave<L>& twin = *twins_[n];
      std::generate_n(twin.v[0], vectors, [&] { return poison(); });
      std::generate_n(twin.v[256], accumulators, [&] { return poison(); });
      std::generate_n(twin.s, scalar_register::kCount, [&] { return poison(); });
      std::generate_n(twin.unwritten, L, [&] { return poison(); });
      set_up(twin, twin_group_, n);
    }
    group_.checked = checking;
  }

  void set_up(Workgroup& group, uint64_t number) {
    group.index[0] = static_cast<uint32_t>(number % what_.grid[0]);
    group.index[1] = static_cast<uint32_t>(number / what_.grid[0] % what_.grid[1]);
    group.index[2] = static_cast<uint32_t>(number / what_.grid[0] / what_.grid[1]);
    group.begin(count_);
  }

  // All that a wave finds when it starts; the other registers hold anything.
  void set_up(Wave<L>& w, Workgroup& group, uint32_t number) {
    const Entry& entry = program_.entry;
    w.number = static_cast<int>(number);
    w.program = &program_;
    w.group = &group;
    w.pc = 0;
    w.scc = false;
    w.signalled = false;
    w.stop = Stop::kNone;
    w.pending.reset();

    const auto [bx, by, bz] = std::tie(what_.block[0], what_.block[1], what_.block[2]);
    uint64_t exec = 0;
    for (uint32_t l = 0; l < L; ++l) {
      const uint32_t thread = number * L + l;
      w.v[0][l] = thread % bx | thread / bx % by << 10 | thread / bx / by << 20;
      exec |= uint64_t{thread < bx * by * bz} << l;
    }
    w.s[scalar_register::kExec + 1] = 0;
    w.set_mask(scalar_register::kExec, exec);

    if (entry.kernarg_at >= 0) {
      const auto address = reinterpret_cast<uint64_t>(what_.kernarg);
      w.s[entry.kernarg_at] = static_cast<uint32_t>(address);
      w.s[entry.kernarg_at + 1] = static_cast<uint32_t>(address >> 32);
    }
    if (entry.group_in_ttmp) {
      w.s[scalar_register::kTtmp + 9] = group.index[0];
      w.s[scalar_register::kTtmp + 7] = group.index[1] | group.index[2] << 16;
    }
    for (int dim = 0; dim < 3; ++dim) {
      if (entry.group_at[dim] >= 0) w.s[entry.group_at[dim]] = group.index[dim];
    }
  }

  void run_waves() {
    uint32_t left = count_;
    const uint64_t quantum = schedule_.quantum ? schedule_.quantum : schedule_.limit;
    std::vector<uint64_t> turns(count_);
    while (left > 0) {
      uint32_t waiting = 0;
      for (const uint32_t n : order_) {
        Wave<L>& w = *waves_[n];
        if (w.stop == Stop::kEnd) continue;
        if (w.stop != Stop::kBarrier) {
          current_ = &w;
          Observer<L>* const observer = observer_ ? &*observer_ : nullptr;
          if (twins_.empty()) run<L, false>(w, nullptr, observer, quantum, counts_.data());
          else run<L, true>(w, twins_[n].get(), observer, quantum, counts_.data());
        }
        if (w.stop == Stop::kBudget && ++turns[n] * quantum >= schedule_.limit) {
          w.fail(program_.rows[w.pc], "the wave does not come to an end");
        }
        if (w.stop == Stop::kEnd) --left;
        if (w.stop == Stop::kBarrier) ++waiting;
      }
      if (left > 0 && waiting == left) {
        group_.pass_barrier();
        twin_group_.pass_barrier();
        std::vector<uint32_t> met;
        for (uint32_t n = 0; n < count_; ++n) {
          if (waves_[n]->stop != Stop::kBarrier) continue;
          waves_[n]->stop = Stop::kNone;
          met.push_back(n);
        }
        if (observer_ && observer_->timing) observer_->timing->meet(met);
      }
    }
  }

  std::string wrong_access(uint64_t address) {
    const Wave<L>& w = *current_;
    const Instruction& i = program_.rows[w.pc - 1];
    std::string lane = "no lane";
    for (int l = 0; l < L; ++l) {
      if (w.active[l] && address - w.address[l] < w.access_bytes) {
        lane = "lane " + std::to_string(l);
        break;
      }
    }
    char text[64];
    std::snprintf(text, sizeof(text), "bad address 0x%llx", static_cast<unsigned long long>(address));
    return Fault(program_, i, w.number, lane + ": " + text).what();
  }

  const Launch& what_;
  const Program& program_;
  const Schedule schedule_;
  uint32_t count_;
  typename Spares<L>::Waves waves_, twins_;  // none unless uninitialised registers are looked for
  Wave<L>* current_ = nullptr;
  Workgroup group_, twin_group_;
  std::vector<uint32_t> order_;
  std::vector<uint64_t> counts_;
  std::optional<Observer<L>> observer_;
};

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
