// SPDX-License-Identifier: Apache-2.0
#include "runtime/openmp.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>

#include "runtime/library.h"

namespace rocmforge {

namespace {

// GNU's entry point for a parallel region, which Intel's and LLVM's runtimes have as well.
using Parallel = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

std::atomic<bool> forked{false};
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { forked.store(true); });

Parallel find_parallel() {
  const std::string torch = Library::find_loaded("libtorch_cpu.so");
  if (torch.empty()) return nullptr;
  // A preloaded runtime comes before the one that torch was linked to, here as in torch.
  if (void* preloaded = dlsym(RTLD_DEFAULT, "GOMP_parallel")) return reinterpret_cast<Parallel>(preloaded);
  return reinterpret_cast<Parallel>(Library(torch).find("GOMP_parallel"));
}

}  // namespace

bool torch_parallel(int threads, void (*body)(void* data), void* data) {
  static std::atomic<Parallel> known{nullptr};
  if (forked.load(std::memory_order_relaxed)) return false;
  Parallel parallel = known.load(std::memory_order_acquire);
  if (!parallel) {
    // Looked for again while it is not there: torch may be imported later.
    parallel = find_parallel();
    if (!parallel) return false;
    known.store(parallel, std::memory_order_release);
  }
  parallel(body, data, static_cast<unsigned>(threads), 0);
  return true;
}

}  // namespace rocmforge
