// SPDX-License-Identifier: Apache-2.0
// Torch's own threads. Its OpenMP runtime lets them spin for milliseconds after each operation, and a second pool then
// waits for CPUs that do nothing: a loop that alternated between torch and a pool of ours ran no faster on two threads
// than on one (750 us on two cores; 480 us on torch's threads).
#pragma once

namespace rocmforge {

// Runs body(data) on `threads` threads, the caller among them, and returns true; false if torch is not loaded in this
// process, uses another kind of threads, or if this is a forked child, which has none of its parent's threads.
bool torch_parallel(int threads, void (*body)(void* data), void* data);

}  // namespace rocmforge
