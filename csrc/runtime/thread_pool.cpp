// SPDX-License-Identifier: Apache-2.0
#include "runtime/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <system_error>

namespace rocmforge {

namespace {

constexpr int kSpins = 2000;  // some 20 to 50 us: longer than from one launch to the next within a layer

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Where the threads of a pool of this size may run: where the calling thread may, unless that is fewer CPUs than
// threads. Then an OpenMP runtime has bound that thread, which says nothing about the others: the kernel keeps them
// within the process's own limits.
cpu_set_t cpus_for(int threads) {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || CPU_COUNT(&cpus) < threads) {
    std::memset(&cpus, 0xff, sizeof(cpus));
  }
  return cpus;
}

struct PoolHolder {
  std::mutex mutex;
  std::shared_ptr<ThreadPool> pool;
};

// The holder is never destroyed: at exit a worker may still be asleep in it. After a fork the child has none of the
// parent's threads, and perhaps its locks: it starts with an empty holder and leaves the old one alone.
std::atomic<PoolHolder*> holder{nullptr};

void forget_pool() { holder.store(new PoolHolder, std::memory_order_release); }

[[maybe_unused]] const bool kForkAware = [] {
  forget_pool();
  return pthread_atfork(nullptr, nullptr, forget_pool) == 0;
}();

}  // namespace

// Lives on the stack of run().
struct ThreadPool::Job {
  SharedLoop& loop;
  std::atomic<int> inside{0};  // workers; changed only under the pool's mutex
};

ThreadPool::ThreadPool(int threads) : threads_(threads) {
  const cpu_set_t cpus = cpus_for(threads);
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setaffinity_np(&attributes, sizeof(cpus), &cpus);
  const auto entry = [](void* pool) -> void* {
    static_cast<ThreadPool*>(pool)->work();
    return nullptr;
  };
  for (int i = 1; i < threads_; ++i) {
    pthread_t thread;
    const int status = pthread_create(&thread, &attributes, entry, this);
    if (status != 0) {
      pthread_attr_destroy(&attributes);
      stop();
      throw std::system_error(status, std::generic_category(), "a thread for CPU kernels cannot be started");
    }
    workers_.push_back(thread);
  }
  pthread_attr_destroy(&attributes);
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  published_.fetch_add(1, std::memory_order_release);
  wake_.notify_all();
  for (pthread_t worker : workers_) pthread_join(worker, nullptr);
  workers_.clear();
}

void ThreadPool::run(SharedLoop& loop) {
  Job job{loop, {}};
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(&job);
  }
  published_.fetch_add(1, std::memory_order_release);
  if (loop.count() >= threads_) {
    wake_.notify_all();
  } else {
    for (int64_t i = 1; i < loop.count(); ++i) wake_.notify_one();
  }
  loop.help();
  // All indices are taken; whoever is inside is in its last chunk.
  for (int i = 0; i < kSpins && job.inside.load(std::memory_order_acquire) != 0; ++i) pause();
  std::unique_lock lock(mutex_);
  jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
  done_.wait(lock, [&job] { return job.inside.load(std::memory_order_acquire) == 0; });
}

void ThreadPool::work() {
  for (uint64_t seen = 0;;) {
    Job* job = nullptr;
    {
      std::unique_lock lock(mutex_);
      for (;;) {
        if (stop_) return;
        seen = published_.load(std::memory_order_acquire);
        const auto has_work = [](const Job* listed) { return listed->loop.open(); };
        const auto open = std::find_if(jobs_.begin(), jobs_.end(), has_work);
        if (open != jobs_.end()) {
          job = *open;
          job->inside.fetch_add(1, std::memory_order_relaxed);
          break;
        }
        lock.unlock();
        const bool more = spin_until_new(seen);
        lock.lock();
        if (!more && published_.load(std::memory_order_acquire) == seen) wake_.wait(lock);
      }
    }
    job->loop.help();
    std::lock_guard lock(mutex_);
    // Under the mutex: run() cannot return, and the job end, before this thread has let go of it.
    if (job->inside.fetch_sub(1, std::memory_order_acq_rel) == 1) done_.notify_all();
  }
}

bool ThreadPool::spin_until_new(uint64_t seen) const {
  for (int i = 0; i < kSpins; ++i) {
    if (published_.load(std::memory_order_acquire) != seen) return true;
    pause();
  }
  return false;
}

std::shared_ptr<ThreadPool> thread_pool(int threads) {
  PoolHolder& mine = *holder.load(std::memory_order_acquire);
  std::lock_guard lock(mine.mutex);
  if (!mine.pool || mine.pool->threads() != threads) mine.pool = std::make_shared<ThreadPool>(threads);
  return mine.pool;
}

}  // namespace rocmforge
