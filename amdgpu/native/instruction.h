// SPDX-License-Identifier: Apache-2.0
// A decoded instruction: which handler, and its operands in the order of the assembly text, destinations first. The
// decoder (amdgpu/decode) writes these structs, so their layout is part of what it and this library agree on.
#pragma once

#include <cstdint>

namespace amdgpu {

enum class Kind : uint8_t { kNone, kVector, kScalar, kConstant };

// The part of a register that an operand names; a destination's other bits become zero (kWholeAs...) or stay.
enum class Part : uint8_t { kWhole, kLow, kHigh, kByte0, kByte1, kByte2, kByte3 };

namespace operand_flag {
inline constexpr uint8_t kNegate = 1;      // of a packed operand: the low element
inline constexpr uint8_t kAbsolute = 2;    // before kNegate
inline constexpr uint8_t kNegateHigh = 4;  // of a packed operand's high element
inline constexpr uint8_t kLowFromHigh = 8;   // packed: the low result's operand is the high element (op_sel)
inline constexpr uint8_t kHighFromHigh = 16;  // packed: the high result's is (op_sel_hi)
inline constexpr uint8_t kSignExtend = 32;    // a byte or half is sign-extended (SDWA), not zero-extended
inline constexpr uint8_t kZeroRest = 64;      // destination: bits outside of the part become zero
}  // namespace operand_flag

struct Operand {
  Kind kind;
  uint8_t count;  // of 32-bit registers
  Part part;
  uint8_t flags;
  uint16_t reg;       // vector: v0 is 0, a0 is 256; scalar: the hardware's number
  uint16_t constant;  // index into the program's constants, for kConstant
};
static_assert(sizeof(Operand) == 8);

namespace scalar_register {
inline constexpr int kVcc = 106, kTtmp = 108, kM0 = 124, kNull = 125, kExec = 126, kCount = 128;
}

inline constexpr int kVectorRegisters = 512, kDecoderRegisters = 8;  // the latter: what the decoder needs for itself
inline constexpr int kOperands = 6;

namespace instruction_flag {
inline constexpr uint16_t kClamp = 1;
inline constexpr uint16_t kOutputShift = 1, kOutputMask = 6;  // omod: 1 times 2, 2 times 4, 3 half
inline constexpr uint16_t kContinued = 8;  // a further step of the instruction before: not counted
}  // namespace instruction_flag

// Counters of outstanding memory operations.
enum class Counter : uint8_t { kNone, kLoads, kStores, kShared, kScalar };
inline constexpr int kCounters = 5;

struct Instruction {
  uint16_t handler;
  uint8_t operands;
  uint8_t results;  // of the operands, the first ones
  uint16_t flags;
  Counter counter;  // that a memory operation raises
  uint8_t mode;  // what the handler makes of it
  uint32_t line;  // of the disassembly
  int32_t offset;  // memory: bytes; branch: the row to go to; wait: see control.cpp
  int32_t offset1;  // the second offset of two-address operations, and other numbers that a handler needs
  Operand operand[kOperands];
};
static_assert(sizeof(Instruction) == 68);

}  // namespace amdgpu
