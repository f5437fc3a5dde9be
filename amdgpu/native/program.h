// SPDX-License-Identifier: Apache-2.0
// One kernel, decoded: rows of instructions, the constants they name and their text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "instruction.h"

namespace amdgpu {

// Where a kernel's registers start, and what it is given; from its descriptor and its report.
struct Entry {
  int32_t lanes;
  int32_t vector_registers;  // that the kernel was allocated, accumulation registers included
  int32_t accumulators_at;   // the first of them that is an accumulation register; the rest are v0 and up
  int32_t shared_bytes;
  int32_t kernarg_bytes;
  int32_t kernarg_at;      // the scalar register with its address, or -1
  int32_t group_at[3];     // the scalar registers with the workgroup's index, or -1
  int32_t group_in_ttmp;   // gfx12: x in ttmp9, y and z in the halves of ttmp7
  int32_t shared_banks;    // of LDS; for counting (traffic.h), as is the next
  int32_t line_bytes;      // of the cache that vector loads meet first
  int32_t hidden_at[6];  // kernarg offsets of block counts x, y, z (32 bits) and group sizes x, y, z (16); -1: none
};

struct Program {
  std::string kernel;
  Entry entry;
  std::vector<Instruction> rows;
  std::vector<uint64_t> constants;
  std::vector<uint32_t> offsets;  // by line, in bytes from the kernel's start
  std::vector<std::string> lines;  // the text of each instruction
  std::vector<int32_t> argument_offsets, argument_sizes;  // in the kernarg segment, bytes; the explicit ones
  uint64_t base = 0;  // the address that the kernel's first instruction has in memory

  // kernel+0x1a4: v_add_f32 v0, v1, v2
  std::string where(uint32_t line) const;
};

}  // namespace amdgpu
