// SPDX-License-Identifier: Apache-2.0
#include "program.h"

#include <cstdio>

#include "fault.h"

namespace amdgpu {

std::string Program::where(uint32_t line) const {
  char at[32];
  std::snprintf(at, sizeof(at), "+0x%x: ", offsets[line]);
  return kernel + at + lines[line];
}

Fault::Fault(const Program& program, const Instruction& instruction, int wave, const std::string& what)
    : std::runtime_error(program.where(instruction.line) + ": wave " + std::to_string(wave) + ": " + what) {}

}  // namespace amdgpu
