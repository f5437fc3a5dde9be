// SPDX-License-Identifier: Apache-2.0
#include "signals.h"

#include <csignal>
#include <mutex>

namespace amdgpu {

namespace {

thread_local Guard* volatile current = nullptr;

struct Previous {
  int number;
  struct sigaction action;
} previous[] = {{SIGSEGV, {}}, {SIGBUS, {}}};

void on_signal(int number, siginfo_t* info, void* context) {
  if (Guard* guard = current) {
    current = nullptr;
    guard->address = reinterpret_cast<uint64_t>(info->si_addr);
    siglongjmp(guard->jump, 1);
  }
  for (const Previous& p : previous) {
    if (p.number != number) continue;
    if (p.action.sa_flags & SA_SIGINFO) {
      p.action.sa_sigaction(number, info, context);
    } else if (p.action.sa_handler != SIG_DFL && p.action.sa_handler != SIG_IGN) {
      p.action.sa_handler(number);
    } else {
      sigaction(number, &p.action, nullptr);  // the access happens again, and ends the process
    }
  }
}

}  // namespace

void install_signal_handler() {
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  for (Previous& p : previous) {
    struct sigaction now{};
    sigaction(p.number, nullptr, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_signal) continue;
    p.action = now;
    struct sigaction ours{};
    ours.sa_sigaction = on_signal;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(p.number, &ours, nullptr);
  }
}

void set_guard(Guard* guard) { current = guard; }

}  // namespace amdgpu
