// SPDX-License-Identifier: Apache-2.0
// Global memory is the host's. Any alignment will do, as in the mode that programs are started in, but for atomics.
#include <vector>

#include "tables.h"
#include "vector_memory.h"

namespace amdgpu {

namespace {

using vector_memory::Places;

// A 64-bit address in a lane's two registers, or a scalar one and a lane's 32-bit unsigned offset.
struct Global {
  static constexpr bool kBounded = false;
  static constexpr Places kLoad{0, 1, 2}, kStore{1, 0, 2}, kAtomic{1, 0, 2}, kReturning{2, 1, 3};
  static constexpr Places kToShared{-1, 0, 1};
  static constexpr const char *kLoadTypes = "x:xU", *kStoreTypes = ":xxU", *kAtomicTypes = ":xxU";
  static constexpr const char *kReturningTypes = "x:xxU", *kToSharedTypes = ":xU";

  template <int L>
  static void addresses(Wave<L>& w, const Instruction& i, const Places& places) {
    const Operand &lane = i.operand[places.address], &base = i.operand[places.base];
    const auto offset = static_cast<uint64_t>(int64_t{i.offset});
    const uint32_t* low = w.v[lane.reg];
    if (base.kind == Kind::kNone) {
      const uint32_t* high = w.v[lane.reg + 1];
      for (int l = 0; l < L; ++l) w.address[l] = (low[l] | uint64_t{high[l]} << 32) + offset;
    } else {
      const uint64_t from = w.scalar(base) + offset;
      for (int l = 0; l < L; ++l) w.address[l] = from + low[l];
    }
  }
};

template <class A>
using Load = vector_memory::Load<Global, A>;
template <class A, Half16 From = Half16::kWord>
using Store = vector_memory::Store<Global, A, From>;

// Words of a scalar load that lie beyond the end of a buffer read as 0.
template <class A, bool Buffer>
struct ScalarLoad {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    const Operand &to = i.operand[0], &base = i.operand[1], &more = i.operand[2];
    const int64_t offset = i.offset + (more.kind == Kind::kNone ? int64_t{0} : static_cast<int64_t>(w.scalar(more)));
    uint64_t at = w.scalar(base);
    int64_t left = A::kBytes;
    if constexpr (Buffer) {
      if (at >> 48) w.fail(i, "a buffer that is swizzled or has a stride is not modelled");
      left = int64_t{w.s[base.reg + 2]} - offset;
    }
    at += static_cast<uint64_t>(offset);
    if (at % (A::kBytes < 4 ? A::kBytes : 4)) w.fail(i, "a scalar load must be aligned");
    for (int l = 0; l < L; ++l) w.address[l] = at;
    w.access_bytes = A::kBytes;
    uint32_t word[A::kRegisters];
    if (left >= A::kBytes) {
      A::fetch(word, reinterpret_cast<const void*>(at));
    } else {
      for (int c = 0; c < A::kRegisters; ++c) {
        word[c] = 0;
        if (left >= 4 * (c + 1))
          std::memcpy(&word[c], reinterpret_cast<const void*>(at + 4u * static_cast<unsigned>(c)), 4);
      }
    }
    for (int c = 0; c < A::kRegisters; ++c) w.s[to.reg + c] = A::extended(word[c]);
    const uint32_t number = w.pending.issue(i.counter);
    w.pending.load(i.counter, number, Pending::scalar_register(to.reg), A::kRegisters);
    w.pending.unordered[static_cast<int>(i.counter)] = number;
  }

  static Handler named(const char* name) { return {name, run<32>, run<64>, Buffer ? "x:xu" : "x:Uu", Flow::kOwn}; }
};

template <class A>
using FromAddress = ScalarLoad<A, false>;
template <class A>
using FromBuffer = ScalarLoad<A, true>;

std::vector<Handler> build() {
  using enum Half16;
  std::vector<Handler> table = {
      vector_memory::LoadToShared<Global, Access<4>>::named("global_load_lds_dword"),
      vector_memory::LoadToShared<Global, Access<12>>::named("global_load_lds_dwordx3"),
      vector_memory::LoadToShared<Global, Access<16>>::named("global_load_lds_dwordx4"),
      Load<Access<1>>::named("global_load_ubyte"),
      Load<Access<1, true>>::named("global_load_sbyte"),
      Load<Access<2>>::named("global_load_ushort"),
      Load<Access<2, true>>::named("global_load_sshort"),
      Load<Access<4>>::named("global_load_dword"),
      Load<Access<8>>::named("global_load_dwordx2"),
      Load<Access<12>>::named("global_load_dwordx3"),
      Load<Access<16>>::named("global_load_dwordx4"),
      Load<Access<1, false, kLow>>::named("global_load_ubyte_d16"),
      Load<Access<1, false, kHigh>>::named("global_load_ubyte_d16_hi"),
      Load<Access<1, true, kLow>>::named("global_load_sbyte_d16"),
      Load<Access<1, true, kHigh>>::named("global_load_sbyte_d16_hi"),
      Load<Access<2, false, kLow>>::named("global_load_short_d16"),
      Load<Access<2, false, kHigh>>::named("global_load_short_d16_hi"),
      Store<Access<1>>::named("global_store_byte"),
      Store<Access<1>, kHigh>::named("global_store_byte_d16_hi"),
      Store<Access<2>>::named("global_store_short"),
      Store<Access<2>, kHigh>::named("global_store_short_d16_hi"),
      Store<Access<4>>::named("global_store_dword"),
      Store<Access<8>>::named("global_store_dwordx2"),
      Store<Access<12>>::named("global_store_dwordx3"),
      Store<Access<16>>::named("global_store_dwordx4"),

      FromAddress<Access<4>>::named("s_load_dword"),
      FromAddress<Access<8>>::named("s_load_dwordx2"),
      FromAddress<Access<12>>::named("s_load_dwordx3"),
      FromAddress<Access<16>>::named("s_load_dwordx4"),
      FromAddress<Access<32>>::named("s_load_dwordx8"),
      FromAddress<Access<64>>::named("s_load_dwordx16"),
      FromAddress<Access<1>>::named("s_load_u8"),
      FromAddress<Access<1, true>>::named("s_load_i8"),
      FromAddress<Access<2>>::named("s_load_u16"),
      FromAddress<Access<2, true>>::named("s_load_i16"),
      FromBuffer<Access<4>>::named("s_buffer_load_dword"),
      FromBuffer<Access<8>>::named("s_buffer_load_dwordx2"),
      FromBuffer<Access<12>>::named("s_buffer_load_dwordx3"),
      FromBuffer<Access<16>>::named("s_buffer_load_dwordx4"),
      FromBuffer<Access<32>>::named("s_buffer_load_dwordx8"),
      FromBuffer<Access<64>>::named("s_buffer_load_dwordx16"),
  };
  vector_memory::add_atomics<Global>(table, "global_atomic_");
  return table;
}

}  // namespace

Handlers global_memory() {
  static const std::vector<Handler> table = build();
  return table;
}

}  // namespace amdgpu
