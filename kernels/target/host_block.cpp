// SPDX-License-Identifier: Apache-2.0
#include "host_block.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "host_switch.h"

namespace rocmforge {

thread_local HostLane host_lane;

namespace {

constexpr size_t kStackBytes = 128 * 1024;

// Stacks are address space until touched (two or three pages each in practice); a guard page ends each.
class Stacks {
 public:
  explicit Stacks(int count) : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), bytes_(count * kStackBytes) {
    base_ = static_cast<char*>(
        mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (base_ == MAP_FAILED) std::abort();
    for (int i = 0; i < count; ++i) mprotect(base_ + i * kStackBytes, page_, PROT_NONE);
  }
  ~Stacks() { munmap(base_, bytes_); }
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  char* top(int i) const { return base_ + (i + 1) * kStackBytes; }

 private:
  size_t page_, bytes_;
  char* base_;
};

// First in, first out, at most one entry per lane.
class Queue {
 public:
  void reset(int capacity) {
    slots_.resize(capacity);
    head_ = count_ = 0;
  }
  bool empty() const { return count_ == 0; }
  void push(int x) {
    int tail = head_ + count_++;
    const int size = static_cast<int>(slots_.size());
    slots_[tail < size ? tail : tail - size] = x;
  }
  int pop() {
    const int x = slots_[head_];
    if (++head_ == static_cast<int>(slots_.size())) head_ = 0;
    --count_;
    return x;
  }

 private:
  std::vector<int> slots_;
  int head_ = 0, count_ = 0;
};

struct Wave {
  int arrived = 0;
  HostCombine combine = nullptr;
  void* payloads[kMaxHostWave];
  int fibers[kMaxHostWave];
};

class BlockRunner {
 public:
  const char* run(const LaunchConfig& config, HostLaneFn fn, const void* args, const int32_t* block);
  void collective(void* payload, HostCombine combine);
  void barrier();

 private:
  static void fiber_main();
  void work();
  void block_here();
  void resume(int fiber);
  void fail(const char* why);

  HostLaneFn fn_ = nullptr;
  const void* args_ = nullptr;
  int threads_ = 0, wave_ = 1;
  int next_ = 0, finished_ = 0, started_fibers_ = 0, current_ = 0;
  const char* error_ = nullptr;
  void* main_sp_ = nullptr;
  std::vector<void*> sp_;        // saved stack pointer of each fiber
  std::vector<int> idle_;        // fibers whose lane has ended
  Queue ready_;
  std::vector<Wave> waves_;
  std::vector<int> at_barrier_;
  std::unique_ptr<Stacks> stacks_;
  int stack_count_ = 0;
  std::unique_ptr<char, decltype(&std::free)> shared_{nullptr, &std::free};
  size_t shared_bytes_ = 0;
};

thread_local BlockRunner* runner = nullptr;

const char* BlockRunner::run(const LaunchConfig& config, HostLaneFn fn, const void* args, const int32_t* block) {
  fn_ = fn;
  args_ = args;
  threads_ = config.threads;
  wave_ = config.wave;
  next_ = finished_ = started_fibers_ = 0;
  error_ = nullptr;
  if (stack_count_ < threads_) {
    stacks_ = std::make_unique<Stacks>(threads_);
    stack_count_ = threads_;
  }
  sp_.assign(threads_, nullptr);
  idle_.clear();
  at_barrier_.clear();
  ready_.reset(threads_);
  waves_.assign((threads_ + wave_ - 1) / wave_, Wave{});
  if (shared_bytes_ < static_cast<size_t>(config.shared_bytes)) {
    shared_bytes_ = (config.shared_bytes + 127) / 128 * 128;
    shared_.reset(static_cast<char*>(std::aligned_alloc(128, shared_bytes_)));
  }
  // All ones reads as NaN: a lane that uses shared memory nobody wrote shows in the result.
  if (config.shared_bytes) std::memset(shared_.get(), 0xff, config.shared_bytes);
  host_lane.shared = shared_.get();
  std::memcpy(host_lane.block, block, sizeof(host_lane.block));

  current_ = started_fibers_++;
  sp_[current_] = host_prepare_stack(stacks_->top(current_), &BlockRunner::fiber_main);
  host_switch(&main_sp_, sp_[current_]);
  return error_;
}

void BlockRunner::fiber_main() { runner->work(); }

// A fiber's life: run lanes to their end, and let waiting lanes go first in between. Never returns.
void BlockRunner::work() {
  for (;;) {
    if (next_ < threads_) {
      host_lane.thread = next_++;
      fn_(args_);
      ++finished_;
    }
    if (finished_ == threads_) {
      host_switch(&sp_[current_], main_sp_);
    } else if (!ready_.empty()) {
      idle_.push_back(current_);
      resume(ready_.pop());
    } else if (next_ == threads_) {
      fail("lanes wait in a barrier or collective that other lanes of the block never reach");
    }
  }
}

void BlockRunner::resume(int fiber) {
  const int mine = current_;
  current_ = fiber;
  host_switch(&sp_[mine], sp_[fiber]);
}

void BlockRunner::fail(const char* why) {
  error_ = why;
  host_switch(&sp_[current_], main_sp_);
}

// Lets others run until this lane is made ready again.
void BlockRunner::block_here() {
  const int thread = host_lane.thread;
  if (!ready_.empty()) {
    resume(ready_.pop());
  } else if (next_ < threads_) {
    int fiber;
    if (idle_.empty()) {
      fiber = started_fibers_++;
      sp_[fiber] = host_prepare_stack(stacks_->top(fiber), &BlockRunner::fiber_main);
    } else {
      fiber = idle_.back();
      idle_.pop_back();
    }
    resume(fiber);
  } else {
    fail("lanes wait in a barrier or collective that other lanes of the block never reach");
  }
  host_lane.thread = thread;
}

void BlockRunner::collective(void* payload, HostCombine combine) {
  const int thread = host_lane.thread;
  Wave& wave = waves_[thread / wave_];
  const int first = thread - thread % wave_;
  const int size = threads_ - first < wave_ ? threads_ - first : wave_;
  if (wave.arrived && wave.combine != combine) fail("lanes of one wave meet in different collectives");
  wave.combine = combine;
  wave.payloads[thread - first] = payload;
  wave.fibers[wave.arrived++] = current_;
  if (wave.arrived < size) return block_here();
  combine(wave.payloads, size);
  wave.arrived = 0;
  for (int i = 0; i + 1 < size; ++i) ready_.push(wave.fibers[i]);
}

void BlockRunner::barrier() {
  if (threads_ == 1) return;
  at_barrier_.push_back(current_);
  if (static_cast<int>(at_barrier_.size()) < threads_) return block_here();
  at_barrier_.pop_back();
  for (int fiber : at_barrier_) ready_.push(fiber);
  at_barrier_.clear();
}

}  // namespace

const char* run_host_block(const LaunchConfig& config, HostLaneFn lane, const void* args, const int32_t* block,
                           const int32_t*) {
  static thread_local BlockRunner instance;
  runner = &instance;
  return instance.run(config, lane, args, block);
}

void host_wave_collective(void* payload, HostCombine combine) { runner->collective(payload, combine); }

void host_barrier() { runner->barrier(); }

}  // namespace rocmforge
