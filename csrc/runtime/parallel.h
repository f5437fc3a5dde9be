// SPDX-License-Identifier: Apache-2.0
// A loop over the blocks of a launch on the CPU, spread over threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

namespace rocmforge {

// The indices below count, handed out in chunks to whoever calls help().
class SharedLoop {
 public:
  using Body = void (*)(void* context, int64_t index);

  SharedLoop(int64_t count, Body body, void* context, int threads);

  // Works until no index is left. Nothing is thrown: the first exception ends the handing out and is kept.
  void help() noexcept;

  int64_t count() const { return count_; }
  bool open() const { return next_.load(std::memory_order_relaxed) < count_; }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  const int64_t count_;
  const int64_t chunk_;
  const Body body_;
  void* const context_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr error_;  // guarded by mutex_ while threads are at work
};

// body(context, i) for each i below count; returns when all have ended, or throws what the first of them threw.
void parallel_for(int64_t count, SharedLoop::Body body, void* context);

// Threads it uses, the caller included: ROCMFORGE_CPU_THREADS, else what was set, else as many as CPUs are allowed.
int cpu_threads();
void set_cpu_threads(int threads);

// Whether to use torch's OpenMP threads where torch is loaded (the default), or always our own.
void set_share_torch_threads(bool share);

}  // namespace rocmforge
