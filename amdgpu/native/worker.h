// SPDX-License-Identifier: Apache-2.0
// What a host thread needs to execute one workgroup of a launch after the other.
#pragma once

#include <algorithm>
#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "checks.h"
#include "launch.h"
#include "run.h"
#include "signals.h"

namespace amdgpu {

inline constexpr uint32_t kPoison =
    0x7fff7fff;  // NaN as a float of 32, 16 (both kinds) and 8 bits, and no sensible address

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
    group_.checked = checking && !schedule_.counting;  // waves that write the same do no harm to counts
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
      w.s[scalar_register::kTtmp + 8] = number << 25;  // of the wave, in its workgroup
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

}  // namespace amdgpu
