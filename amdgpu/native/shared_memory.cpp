// SPDX-License-Identifier: Apache-2.0
// LDS: loads, stores, atomics and the permutations of lanes that go through its hardware. An address is a lane's
// register plus the instruction's offset, and every byte must be within what the workgroup was given.
#include <algorithm>
#include <string>
#include <vector>

#include "access.h"
#include "atomic_operations.h"
#include "handler.h"
#include "shared_checks.h"
#include "tables.h"

namespace amdgpu {

namespace {

using enum SharedUse;

// The active lanes' addresses, all within bounds.
template <int Bytes, int L>
void addresses(const Wave<L>& w, const Instruction& i, const Operand& o, int64_t offset, uint32_t (&address)[L]) {
  const int64_t size = static_cast<int64_t>(w.group->shared.size()), last = size - Bytes - offset;
  const uint32_t* from = w.v[o.reg];
  const uint32_t top = last < 0 ? 0 : static_cast<uint32_t>(last);
  uint32_t outside = 0;
  for (int l = 0; l < L; ++l) {
    address[l] = from[l] + static_cast<uint32_t>(offset);
    outside |= last < 0 || from[l] > top ? w.active[l] : 0;
  }
  if (!outside) return;
  for (int l = 0; l < L; ++l) {
    if (!w.active[l] || (last >= 0 && from[l] <= top)) continue;
    w.fail(i, "lane " + std::to_string(l) + ", LDS address " + std::to_string(from[l] + offset) + ", " +
                  std::to_string(Bytes) + " bytes: LDS has " + std::to_string(size) + " bytes");
  }
}

template <class A, int L>
void fetch(Wave<L>& w, const uint32_t (&address)[L], Staged<A, L>& staged) {
  const uint8_t* shared = w.group->shared.data();
  for (int l = 0; l < L; ++l) {
    if (w.active[l]) A::fetch(staged.lane[l], shared + address[l]);
  }
}

template <class A, int L>
void put(Wave<L>& w, const uint32_t (&address)[L], const Staged<A, L>& staged) {
  uint8_t* shared = w.group->shared.data();
  for (int l = 0; l < L; ++l) {
    if (w.active[l]) A::put(shared + address[l], staged.lane[l]);
  }
}

// Operands: destination, address. Two, or one with two offsets, which count elements, or 64 of them.
template <class A, int Addresses = 1, int Scale = 1>
struct Read {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    const int reg = i.operand[0].reg;
    const uint32_t number = w.pending.issue(i.counter);
    alignas(64) uint32_t address[Addresses][L];
    for (int n = 0; n < Addresses; ++n) {
      addresses<A::kBytes>(w, i, i.operand[1], int64_t{n ? i.offset1 : i.offset} * Scale, address[n]);
    }
    for (int n = 0; n < Addresses; ++n) {
      Staged<A, L> staged;
      fetch(w, address[n], staged);
      to_registers(w, reg + n * A::kRegisters, staged);
      check_shared<kRead, A::kBytes>(w, i, address[n], number);
    }
    w.pending.load(i.counter, number, Pending::vector_register(reg), Addresses * A::kRegisters);
  }

  static Handler named(const char* name) { return {name, run<32>, run<64>, "x:u", Flow::kOwn}; }
};

template <class A>
using Read2 = Read<A, 2, A::kBytes>;
template <class A>
using Read2Stride64 = Read<A, 2, 64 * A::kBytes>;

// Operands: address, data, and a second data.
template <class A, Half16 From = Half16::kWord, int Addresses = 1, int Scale = 1>
struct Write {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    const uint32_t number = w.pending.issue(i.counter);
    alignas(64) uint32_t address[Addresses][L];
    for (int n = 0; n < Addresses; ++n) {
      addresses<A::kBytes>(w, i, i.operand[0], int64_t{n ? i.offset1 : i.offset} * Scale, address[n]);
    }
    for (int n = 0; n < Addresses; ++n) {
      Staged<A, L> staged;
      from_registers(w, i.operand[1 + n].reg, staged, From);
      put(w, address[n], staged);
      check_shared<kWrite, A::kBytes>(w, i, address[n], number);
    }
  }

  static Handler named(const char* name) {
    return {name, run<32>, run<64>, Addresses == 2 ? ":uxx" : ":ux", Flow::kOwn};
  }
};

template <class A>
using Write2 = Write<A, Half16::kWord, 2, A::kBytes>;
template <class A>
using Write2Stride64 = Write<A, Half16::kWord, 2, 64 * A::kBytes>;

// Operands: destination if it returns, address, data, and for comparisons a second data. gfx9 has what is compared
// first and the new value second, gfx11 and later the other way around.
enum class Compare { kNone, kFirst, kSecond };

template <class Op, class T, bool Returns, Compare C>
struct Atomic {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    constexpr int kAddress = Returns ? 1 : 0;
    using A = Access<sizeof(T)>;
    const uint32_t number = w.pending.issue(i.counter);
    alignas(64) uint32_t address[L];
    addresses<A::kBytes>(w, i, i.operand[kAddress], i.offset, address);
    check_shared<kAtomic, A::kBytes>(w, i, address, number);
    Staged<A, L> data, other, old;
    from_registers(w, i.operand[kAddress + 1].reg, data);
    if constexpr (C != Compare::kNone) from_registers(w, i.operand[kAddress + 2].reg, other);
    for (int l = 0; l < L; ++l) {
      if (!w.active[l]) continue;
      void* at = w.group->shared.data() + address[l];
      T before, x, next;
      std::memcpy(&before, at, sizeof(T));
      std::memcpy(&x, data.lane[l], sizeof(T));
      if constexpr (C == Compare::kNone) {
        next = Op::apply(before, x);
      } else {
        T y;
        std::memcpy(&y, other.lane[l], sizeof(T));
        const T compared = C == Compare::kFirst ? x : y, wanted = C == Compare::kFirst ? y : x;
        next = before == compared ? wanted : before;
      }
      std::memcpy(at, &next, sizeof(T));
      std::memcpy(old.lane[l], &before, sizeof(T));
    }
    if constexpr (Returns) {
      const int reg = i.operand[0].reg;
      to_registers(w, reg, old);
      w.pending.load(i.counter, number, Pending::vector_register(reg), A::kRegisters);
    }
  }

  static Handler named(const std::string& name) {
    const std::string sources = C == Compare::kNone ? ":ux" : ":uxx";
    return {name, run<32>, run<64>, (Returns ? "x" : "") + sources, Flow::kOwn};
  }
};

// Its form that returns the value before, and the one that does not.
template <class Op, class T, Compare C = Compare::kNone>
void add_atomic(std::vector<Handler>& table, const std::string& operation, const std::string& type) {
  table.push_back(Atomic<Op, T, false, C>::named("ds_" + operation + type));
  table.push_back(Atomic<Op, T, true, C>::named("ds_" + operation + "_rtn" + type));
}

// The element of 16 bits that lane l gets as its k-th is what lane 4 k + l / 4 of its 16 lanes reads as l % 4.
template <int L>
void read_transposed(Wave<L>& w, const Instruction& i) {
  using A = Access<8>;
  if (w.exec() != w.kAll) w.fail(i, "with lanes off in EXEC is not modelled");
  const int reg = i.operand[0].reg;
  const uint32_t number = w.pending.issue(i.counter);
  alignas(64) uint32_t address[L];
  addresses<A::kBytes>(w, i, i.operand[1], i.offset, address);
  Staged<A, L> staged, moved;
  fetch(w, address, staged);
  for (int l = 0; l < L; ++l) {
    const auto element = [&](int k) {
      const int from = l / 16 * 16 + 4 * k + l % 16 / 4;
      return staged.lane[from][l % 4 / 2] >> (16 * (l % 2)) & 0xffffu;
    };
    moved.lane[l][0] = element(0) | element(1) << 16;
    moved.lane[l][1] = element(2) | element(3) << 16;
  }
  to_registers(w, reg, moved);
  check_shared<kRead, A::kBytes>(w, i, address, number);
  w.pending.load(i.counter, number, Pending::vector_register(reg), A::kRegisters);
}

template <int L>
void moved(Wave<L>& w, const Instruction& i, const uint32_t (&value)[L]) {
  const Operand& to = i.operand[0];
  for (int l = 0; l < L; ++l) w.v[to.reg][l] = w.active[l] ? value[l] : w.v[to.reg][l];
  begin_load(w, i, to.reg, 1);
}

// Lane l gets what the lane of its address has. From lanes that are off comes 0, or with Inactive their value.
template <bool Inactive>
struct BackwardPermute {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    uint32_t value[L];
    const uint32_t *address = w.v[i.operand[1].reg], *data = w.v[i.operand[2].reg];
    for (int l = 0; l < L; ++l) {
      const uint32_t from = (address[l] + static_cast<uint32_t>(i.offset)) / 4 % L;
      value[l] = Inactive ? data[from] : data[from] & w.active[from];
    }
    moved(w, i, value);
  }
};

// The lane of lane l's address gets what l has; of several, the highest one's. Who gets nothing gets 0.
template <int L>
void permute(Wave<L>& w, const Instruction& i) {
  uint32_t value[L] = {};
  const uint32_t *address = w.v[i.operand[1].reg], *data = w.v[i.operand[2].reg];
  for (int l = 0; l < L; ++l) {
    if (w.active[l]) value[(address[l] + static_cast<uint32_t>(i.offset)) / 4 % L] = data[l];
  }
  moved(w, i, value);
}

// The lane, of 32, that lane l of them gets its value from, by the modes of `offset`.
uint32_t swizzled(uint32_t l, uint32_t offset) {
  const uint32_t low = offset & 31, middle = offset >> 5 & 31, high = offset >> 10 & 31;
  if (offset >= 0xe000) {  // the order of a Fourier transform: reversed bits, but for a mask
    uint32_t reversed = 0;
    for (int bit = 0; bit < 5; ++bit) reversed |= (l >> bit & 1) << (4 - bit);
    return (reversed >> __builtin_popcount(low) | (l & low)) & 31;
  }
  if (offset >= 0xc000) {  // rotation, in either direction, of the bits outside of a mask
    const uint32_t by = high & 1 ? 32 - middle : middle;
    return (l & low) | ((l + by) & ~low & 31);
  }
  if (offset & 0x8000) return (l & ~3u) | (offset >> (2 * (l & 3)) & 3);  // any order within four lanes
  return ((l & low) | middle) ^ high;
}

template <int L>
void swizzle(Wave<L>& w, const Instruction& i) {
  uint32_t value[L];
  const uint32_t* data = w.v[i.operand[1].reg];
  for (uint32_t l = 0; l < L; ++l) {
    const uint32_t from = (l & 32) | swizzled(l & 31, static_cast<uint32_t>(i.offset));
    value[l] = data[from] & w.active[from];
  }
  moved(w, i, value);
}

template <class T, class I>
void add_atomics(std::vector<Handler>& table, const std::string& bits) {
  using namespace atomic;  // NOLINT
  add_atomic<Add, T>(table, "add", "_u" + bits);
  add_atomic<Subtract, T>(table, "sub", "_u" + bits);
  add_atomic<ReverseSubtract, T>(table, "rsub", "_u" + bits);
  add_atomic<Increment, T>(table, "inc", "_u" + bits);
  add_atomic<Decrement, T>(table, "dec", "_u" + bits);
  add_atomic<Minimum, I>(table, "min", "_i" + bits);
  add_atomic<Minimum, T>(table, "min", "_u" + bits);
  add_atomic<Maximum, I>(table, "max", "_i" + bits);
  add_atomic<Maximum, T>(table, "max", "_u" + bits);
  add_atomic<And, T>(table, "and", "_b" + bits);
  add_atomic<Or, T>(table, "or", "_b" + bits);
  add_atomic<Xor, T>(table, "xor", "_b" + bits);
  add_atomic<void, T, Compare::kFirst>(table, "cmpst", "_b" + bits);
  add_atomic<void, T, Compare::kSecond>(table, "cmpstore", "_b" + bits);
  table.push_back(Atomic<Exchange, T, true, Compare::kNone>::named("ds_wrxchg_rtn_b" + bits));
}

std::vector<Handler> build() {
  using enum Half16;
  std::vector<Handler> table = {
      Read<Access<1>>::named("ds_read_u8"),
      Read<Access<1, true>>::named("ds_read_i8"),
      Read<Access<2>>::named("ds_read_u16"),
      Read<Access<2, true>>::named("ds_read_i16"),
      Read<Access<4>>::named("ds_read_b32"),
      Read<Access<8>>::named("ds_read_b64"),
      Read<Access<12>>::named("ds_read_b96"),
      Read<Access<16>>::named("ds_read_b128"),
      Read<Access<1, false, kLow>>::named("ds_read_u8_d16"),
      Read<Access<1, false, kHigh>>::named("ds_read_u8_d16_hi"),
      Read<Access<1, true, kLow>>::named("ds_read_i8_d16"),
      Read<Access<1, true, kHigh>>::named("ds_read_i8_d16_hi"),
      Read<Access<2, false, kLow>>::named("ds_read_u16_d16"),
      Read<Access<2, false, kHigh>>::named("ds_read_u16_d16_hi"),
      Read2<Access<4>>::named("ds_read2_b32"),
      Read2<Access<8>>::named("ds_read2_b64"),
      Read2Stride64<Access<4>>::named("ds_read2st64_b32"),
      Read2Stride64<Access<8>>::named("ds_read2st64_b64"),
      Write<Access<1>>::named("ds_write_b8"),
      Write<Access<1>, kHigh>::named("ds_write_b8_d16_hi"),
      Write<Access<2>>::named("ds_write_b16"),
      Write<Access<2>, kHigh>::named("ds_write_b16_d16_hi"),
      Write<Access<4>>::named("ds_write_b32"),
      Write<Access<8>>::named("ds_write_b64"),
      Write<Access<12>>::named("ds_write_b96"),
      Write<Access<16>>::named("ds_write_b128"),
      Write2<Access<4>>::named("ds_write2_b32"),
      Write2<Access<8>>::named("ds_write2_b64"),
      Write2Stride64<Access<4>>::named("ds_write2st64_b32"),
      Write2Stride64<Access<8>>::named("ds_write2st64_b64"),
      {"ds_read_b64_tr_b16", read_transposed<32>, read_transposed<64>, "x:u", Flow::kOwn},
      {"ds_bpermute_b32", BackwardPermute<false>::run<32>, BackwardPermute<false>::run<64>, "x:ux", Flow::kOwn},
      {"ds_bpermute_fi_b32", BackwardPermute<true>::run<32>, BackwardPermute<true>::run<64>, "x:ux", Flow::kOwn},
      {"ds_permute_b32", permute<32>, permute<64>, "x:ux", Flow::kOwn},
      {"ds_swizzle_b32", swizzle<32>, swizzle<64>, "x:x", Flow::kOwn},
  };
  add_atomics<uint32_t, int32_t>(table, "32");
  add_atomics<uint64_t, int64_t>(table, "64");
  add_atomic<atomic::Add, float>(table, "add", "_f32");
  add_atomic<atomic::Minimum, float>(table, "min", "_f32");
  add_atomic<atomic::Maximum, float>(table, "max", "_f32");
  add_atomic<atomic::Add, double>(table, "add", "_f64");
  add_atomic<atomic::Minimum, double>(table, "min", "_f64");
  add_atomic<atomic::Maximum, double>(table, "max", "_f64");
  add_atomic<atomic::AddHalves, uint32_t>(table, "pk_add", "_f16");
  add_atomic<atomic::AddBrainHalves, uint32_t>(table, "pk_add", "_bf16");
  return table;
}

}  // namespace

Handlers shared_memory() {
  static const std::vector<Handler> table = build();
  return table;
}

}  // namespace amdgpu
