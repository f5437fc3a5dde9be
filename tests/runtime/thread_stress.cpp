// SPDX-License-Identifier: Apache-2.0
// Loops from several threads at once, some of which fail; run under ThreadSanitizer.
#include <cstdio>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <vector>

#include "runtime/parallel.h"

namespace {

void add(void* context, int64_t index) { ++(*static_cast<std::vector<int>*>(context))[static_cast<size_t>(index)]; }

void fail(void*, int64_t index) {
  if (index == 7) throw std::runtime_error("seven");
}

bool work(int seed) {
  bool good = true;
  for (int round = 1; round <= 60; ++round) {
    std::vector<int> counts(static_cast<size_t>(1 + (seed * 37 + round * 11) % 200));
    rocmforge::parallel_for(static_cast<int64_t>(counts.size()), add, &counts);
    for (int count : counts) good &= count == 1;
    try {
      rocmforge::parallel_for(20, fail, nullptr);
      good = false;
    } catch (const std::runtime_error&) {
      good &= true;
    }
  }
  return good;
}

}  // namespace

int main() {
  bool good = true;
  for (int threads : {2, 4, 3}) {
    rocmforge::set_cpu_threads(threads);
    std::vector<char> results(5);
    std::vector<std::thread> callers;
    for (int i = 0; i < 5; ++i) callers.emplace_back([&results, i] { results[static_cast<size_t>(i)] = work(i); });
    for (auto& caller : callers) caller.join();
    for (char result : results) good &= result != 0;
  }
  std::puts(good ? "ok" : "wrong");
  return good ? 0 : 1;
}
