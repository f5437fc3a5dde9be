// SPDX-License-Identifier: Apache-2.0
// A wrong address in a kernel is a fault of the kernel, not of this process: while a thread executes one, SIGSEGV and
// SIGBUS come back as a value.
#pragma once

#include <csetjmp>
#include <cstdint>

namespace amdgpu {

struct Guard {
  sigjmp_buf jump;
  uint64_t address = 0;  // that could not be accessed
  Guard* outer = nullptr;
};

// Makes this library's handler the one that is called; cheap where it is already.
void install_signal_handler();

// The guard that the calling thread's wrong accesses go to; null: none, they go to who had the signal before.
void set_guard(Guard* guard);

}  // namespace amdgpu
