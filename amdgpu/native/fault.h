// SPDX-License-Identifier: Apache-2.0
// What ends a launch: the message names the instruction, the wave and, where there is one, the lane.
#pragma once

#include <stdexcept>
#include <string>

#include "instruction.h"

namespace amdgpu {

struct Program;

class Fault : public std::runtime_error {
 public:
  Fault(const Program& program, const Instruction& instruction, int wave, const std::string& what);
};

}  // namespace amdgpu
