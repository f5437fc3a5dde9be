// SPDX-License-Identifier: Apache-2.0
// Switching stacks: a dozen instructions, since a block of 256 lanes does it hundreds of times per tile.
#pragma once

#if defined(__x86_64__) || defined(__aarch64__)

// Saves the callee-saved registers on this stack, its pointer in *save, and continues on the stack `load`.
extern "C" void rocmforge_host_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.hidden rocmforge_host_switch
.globl rocmforge_host_switch
.type rocmforge_host_switch, @function
rocmforge_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size rocmforge_host_switch, .-rocmforge_host_switch
)");
#else
asm(R"(
.text
.hidden rocmforge_host_switch
.globl rocmforge_host_switch
.type rocmforge_host_switch, %function
rocmforge_host_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size rocmforge_host_switch, .-rocmforge_host_switch
)");
#endif

namespace rocmforge {

inline void host_switch(void** save, void* load) { rocmforge_host_switch(save, load); }

// A stack that enters `entry` (which never returns) at the first switch to it.
inline void* host_prepare_stack(char* top, void (*entry)()) {
#if defined(__x86_64__)
  void** sp = reinterpret_cast<void**>(top) - 1;  // at entry: rsp = 8 modulo 16, as after a call
  *sp = nullptr;
  *--sp = reinterpret_cast<void*>(entry);
  sp -= 6;
#else
  void** sp = reinterpret_cast<void**>(top) - 20;
  sp[11] = reinterpret_cast<void*>(entry);  // x30
#endif
  return sp;
}

}  // namespace rocmforge

#else
#error "the CPU target's stack switch is written for x86-64 and aarch64"
#endif
