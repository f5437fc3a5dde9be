// SPDX-License-Identifier: Apache-2.0
// Threads that share the blocks of a launch on the CPU.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <vector>

namespace rocmforge {

class ThreadPool {
 public:
  using Body = void (*)(void* context, int64_t index);

  // `threads` counts the caller of run() too. Threads may run on `cpus`, whatever the creating thread is bound to.
  ThreadPool(int threads, const cpu_set_t& cpus);
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
  cpu_set_t cpus_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  std::vector<Job*> jobs_;  // guarded by mutex_
  bool stop_ = false;       // guarded by mutex_
  std::atomic<uint64_t> published_{0};  // jobs so far: what idle workers watch for a moment before they sleep
  std::vector<pthread_t> workers_;
};

// The process's pool: made at first use, anew after a fork. Its size is ROCMFORGE_CPU_THREADS, or the number of CPUs
// that the process could use when this module was loaded.
ThreadPool& thread_pool();
int default_threads();

}  // namespace rocmforge
