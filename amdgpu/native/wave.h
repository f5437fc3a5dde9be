// SPDX-License-Identifier: Apache-2.0
// The state of a wave of kLanes lanes.
#pragma once

#include <cstdint>
#include <cstring>

#include "fault.h"
#include "instruction.h"
#include "pending.h"
#include "program.h"
#include "workgroup.h"

namespace amdgpu {

enum class Stop : uint8_t { kNone, kBarrier, kEnd, kBudget };

template <int Lanes>
struct Wave {
  static constexpr int kLanes = Lanes;
  static constexpr uint64_t kAll = Lanes == 64 ? ~uint64_t{0} : 0xffffffffu;

  alignas(64) uint32_t v[kVectorRegisters + kDecoderRegisters][Lanes];
  alignas(64) uint32_t active[Lanes];  // EXEC by lane, all ones or zero
  uint32_t s[scalar_register::kCount];
  bool scc;
  bool signalled;  // has told a barrier that it is there, and not waited yet (gfx12)
  Stop stop;
  uint32_t pc;  // row of the next instruction
  int number;   // in its workgroup
  uint32_t unwritten[Lanes];  // what lanes find in memory that another wave writes meanwhile
  const Program* program;
  Workgroup* group;
  Pending pending;
  uint64_t address[Lanes];  // of the memory access going on, for the active lanes; a wrong one is found by them
  uint32_t access_bytes;    // of a lane

  uint64_t exec() const { return mask_at(scalar_register::kExec); }

  uint64_t mask_at(int reg) const {
    if constexpr (Lanes == 64) return s[reg] | uint64_t{s[reg + 1]} << 32;
    else return s[reg];
  }

  void set_scalar(int reg, uint32_t value) {
    if (reg == scalar_register::kNull) return;
    s[reg] = value;
    if (reg >= scalar_register::kExec) exec_changed();
  }

  void set_mask(int reg, uint64_t mask) {
    if (reg == scalar_register::kNull) return;
    s[reg] = static_cast<uint32_t>(mask);
    if constexpr (Lanes == 64) s[reg + 1] = static_cast<uint32_t>(mask >> 32);
    if (reg >= scalar_register::kExec) exec_changed();
  }

  void exec_changed() {
    for (int word = 0; word < Lanes / 32; ++word) {
      const uint32_t bits = s[scalar_register::kExec + word];
      for (int l = 0; l < 32; ++l) active[32 * word + l] = 0u - (bits >> l & 1u);
    }
  }

  uint64_t constant(const Operand& o) const { return program->constants[o.constant]; }

  // A scalar operand, of one register or two.
  uint64_t scalar(const Operand& o) const {
    if (o.kind == Kind::kConstant) return constant(o);
    if (o.reg == scalar_register::kNull) return 0;
    return o.count > 1 ? s[o.reg] | uint64_t{s[o.reg + 1]} << 32 : s[o.reg];
  }

  // An operand that is a mask of lanes.
  uint64_t mask(const Operand& o) const {
    if (o.kind == Kind::kConstant) return constant(o) & kAll;
    return o.reg == scalar_register::kNull ? 0 : mask_at(o.reg);
  }

  // As what fails at no lane in particular; see also fault.h.
  [[noreturn]] void fail(const Instruction& i, const std::string& what) const {
    throw Fault(*program, i, number, what);
  }
};

}  // namespace amdgpu
