// SPDX-License-Identifier: Apache-2.0
// Threads that share the blocks of a launch on the CPU.
#pragma once

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace rocmforge {

class ThreadPool {
 public:
  using Body = void (*)(void* context, int64_t index);

  explicit ThreadPool(int threads);  // counting the caller of run()
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // body(context, i) for each i below count, spread over the threads; returns when all have ended. Any number of
  // threads may call at once. The first exception is thrown here; indices not begun by then are dropped.
  void run(int64_t count, Body body, void* context);

 private:
  struct Job;

  void stop();
  void work();
  static void help(Job& job);
  bool spin_until_new(uint64_t seen) const;

  const int threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<Job*> jobs_;  // guarded by mutex_
  bool stop_ = false;       // guarded by mutex_
  std::atomic<uint64_t> published_{0};  // jobs so far: what idle workers watch for a moment before they sleep
  std::vector<pthread_t> workers_;
};

// The process's pool: made at first use, anew after a fork or when its size has changed.
std::shared_ptr<ThreadPool> thread_pool();

// Its size: ROCMFORGE_CPU_THREADS, else what was set, else the number of CPUs that the calling thread may use.
int cpu_threads();
void set_cpu_threads(int threads);

}  // namespace rocmforge
