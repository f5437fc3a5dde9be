// SPDX-License-Identifier: Apache-2.0
#include "runtime/parallel.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "runtime/errors.h"
#include "runtime/openmp.h"
#include "runtime/thread_pool.h"

namespace rocmforge {

namespace {

constexpr int kMaxThreads = 4096;
constexpr int kChunksPerThread = 16;  // small enough to even out, large enough that taking one costs nothing

std::atomic<int> configured_threads{0};
std::atomic<bool> share_torch_threads{true};

int allowed_cpus() {
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? std::max(1, CPU_COUNT(&cpus)) : 1;
}

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

}  // namespace

SharedLoop::SharedLoop(int64_t count, Body body, void* context, int threads)
    : count_(count),
      chunk_(std::max<int64_t>(1, count / (int64_t{threads} * kChunksPerThread))),
      body_(body),
      context_(context) {}

void SharedLoop::help() noexcept {
  try {
    for (;;) {
      const int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= count_) return;
      const int64_t end = std::min(begin + chunk_, count_);
      for (int64_t i = begin; i < end; ++i) body_(context_, i);
    }
  } catch (...) {
    next_.store(count_, std::memory_order_relaxed);
    std::lock_guard lock(mutex_);
    if (!error_) error_ = std::current_exception();
  }
}

void parallel_for(int64_t count, SharedLoop::Body body, void* context) {
  const int threads = static_cast<int>(std::min<int64_t>(cpu_threads(), count));
  if (threads <= 1) {
    for (int64_t i = 0; i < count; ++i) body(context, i);
    return;
  }
  SharedLoop loop(count, body, context, threads);
  // All of torch's threads or none: a team of another size costs it the threads it has.
  const auto help = [](void* shared) { static_cast<SharedLoop*>(shared)->help(); };
  if (!share_torch_threads.load(std::memory_order_relaxed) || !torch_parallel(cpu_threads(), help, &loop)) {
    thread_pool(cpu_threads())->run(loop);
  }
  loop.rethrow();
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

void set_share_torch_threads(bool share) { share_torch_threads.store(share, std::memory_order_relaxed); }

}  // namespace rocmforge
