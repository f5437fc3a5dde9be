// SPDX-License-Identifier: Apache-2.0
#include "runtime/thread_pool.h"

#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

#include "runtime/errors.h"

namespace rocmforge {

namespace {

constexpr int kMaxThreads = 4096;
constexpr int kSpins = 2000;        // some 20 to 50 us: longer than from one launch to the next within a layer
constexpr int kChunksPerThread = 16;  // small enough to even out, large enough that taking one costs nothing

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
  if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0 || CPU_COUNT(&cpus) < threads) std::memset(&cpus, 0xff, sizeof(cpus));
  return cpus;
}

int allowed_cpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? std::max(1, CPU_COUNT(&cpus)) : 1;
}

std::atomic<int> configured_threads{0};

int threads_from_environment() {
  const char* text = std::getenv("ROCMFORGE_CPU_THREADS");
  if (!text || !*text) return 0;
  char* end = nullptr;
  const long threads = std::strtol(text, &end, 10);
  if (*end != 0 || threads < 1 || threads > kMaxThreads) {
    throw DeviceError("ROCMFORGE_CPU_THREADS=" + std::string(text) + ": a number from 1 to " +
                      std::to_string(kMaxThreads) + " is needed");
  }
  return static_cast<int>(threads);
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
  Body body;
  void* context;
  int64_t count;
  int64_t chunk;
  std::atomic<int64_t> next{0};
  std::atomic<int> inside{0};  // workers; changed only under the pool's mutex
  std::mutex mutex;
  std::exception_ptr error;
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

void ThreadPool::run(int64_t count, Body body, void* context) {
  if (count <= 1 || threads_ == 1) {
    for (int64_t i = 0; i < count; ++i) body(context, i);
    return;
  }
  Job job{body, context, count, std::max<int64_t>(1, count / (int64_t{threads_} * kChunksPerThread)), {}, {}, {}, {}};
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(&job);
  }
  published_.fetch_add(1, std::memory_order_release);
  if (count - 1 >= threads_ - 1) {
    wake_.notify_all();
  } else {
    for (int64_t i = 1; i < count; ++i) wake_.notify_one();
  }
  help(job);
  // All indices are taken; whoever is inside is in its last chunk.
  for (int i = 0; i < kSpins && job.inside.load(std::memory_order_acquire) != 0; ++i) pause();
  {
    std::unique_lock lock(mutex_);
    jobs_.erase(std::find(jobs_.begin(), jobs_.end(), &job));
    done_.wait(lock, [&job] { return job.inside.load(std::memory_order_acquire) == 0; });
  }
  if (job.error) std::rethrow_exception(job.error);
}

void ThreadPool::help(Job& job) {
  try {
    for (;;) {
      const int64_t begin = job.next.fetch_add(job.chunk, std::memory_order_relaxed);
      if (begin >= job.count) return;
      const int64_t end = std::min(begin + job.chunk, job.count);
      for (int64_t i = begin; i < end; ++i) job.body(job.context, i);
    }
  } catch (...) {
    job.next.store(job.count, std::memory_order_relaxed);
    std::lock_guard lock(job.mutex);
    if (!job.error) job.error = std::current_exception();
  }
}

void ThreadPool::work() {
  for (uint64_t seen = 0;;) {
    Job* job = nullptr;
    {
      std::unique_lock lock(mutex_);
      for (;;) {
        if (stop_) return;
        seen = published_.load(std::memory_order_acquire);
        const auto open = std::find_if(jobs_.begin(), jobs_.end(), [](const Job* listed) {
          return listed->next.load(std::memory_order_relaxed) < listed->count;
        });
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
    help(*job);
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

int cpu_threads() {
  static const int from_environment = threads_from_environment();
  if (from_environment) return from_environment;
  const int threads = configured_threads.load(std::memory_order_relaxed);
  return threads ? threads : allowed_cpus();
}

void set_cpu_threads(int threads) {
  configured_threads.store(std::clamp(threads, 1, kMaxThreads), std::memory_order_relaxed);
}

std::shared_ptr<ThreadPool> thread_pool() {
  PoolHolder& mine = *holder.load(std::memory_order_acquire);
  std::lock_guard lock(mine.mutex);
  const int threads = cpu_threads();
  if (!mine.pool || mine.pool->threads() != threads) mine.pool = std::make_shared<ThreadPool>(threads);
  return mine.pool;
}

}  // namespace rocmforge
