// SPDX-License-Identifier: Apache-2.0
// Threads of our own that share the blocks of a launch on the CPU.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "runtime/parallel.h"

namespace rocmforge {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // counting the caller of run()
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Returns when all of the work is done. Any number of threads may call at once.
  void run(SharedLoop& loop);

 private:
  struct Job;

  void stop();
  void work();
  bool spin_until_new(uint64_t seen) const;

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<Job*> jobs_;              // guarded by mutex_
  bool stop_ = false;                   // guarded by mutex_
  std::atomic<uint64_t> published_{0};  // jobs so far: what idle workers watch for a moment before they sleep
  std::vector<pthread_t> workers_;
};

// The process's pool of this size: made at first use, anew after a fork or when the size has changed.
std::shared_ptr<ThreadPool> thread_pool(int threads);

}  // namespace rocmforge
