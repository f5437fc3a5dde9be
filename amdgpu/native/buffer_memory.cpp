// SPDX-License-Identifier: Apache-2.0
// Raw buffers: a base, a number of bytes and offsets. What lies beyond the end reads as 0 and is not written, each
// 32-bit word by itself.
#include <algorithm>

#include "tables.h"
#include "vector_memory.h"

namespace amdgpu {

namespace {

using vector_memory::Places;

// Operands: data, a lane's offset or nothing, the descriptor in four scalar registers, and a scalar offset.
struct Buffer {
  static constexpr bool kBounded = true;
  static constexpr uint8_t kIndexed = 2;  // in `mode`: idxen
  static constexpr Places kLoad{0, 1, 2}, kStore{0, 1, 2}, kAtomic{0, 1, 2}, kReturning{0, 1, 2};
  static constexpr Places kToShared{-1, 0, 1};
  static constexpr const char *kLoadTypes = "x:xxu", *kStoreTypes = ":xxxu", *kAtomicTypes = ":xxxu";
  static constexpr const char *kReturningTypes = "x:xxu", *kToSharedTypes = ":xxu";

  template <int L>
  static void addresses(Wave<L>& w, const Instruction& i, const Places& places, int64_t (&left)[L]) {
    const Operand &lane = i.operand[places.address], &more = i.operand[places.base + 1];
    const uint32_t* descriptor = &w.s[i.operand[places.base].reg];
    if (descriptor[1] >> 16) w.fail(i, "a buffer that is swizzled or has a stride is not modelled");
    if (i.mode & kIndexed) w.fail(i, "a buffer with an index is not modelled");
    if (descriptor[3] >> 23 & 1) w.fail(i, "a buffer that adds the lane's number is not modelled");
    const uint64_t base = descriptor[0] | uint64_t{descriptor[1]} << 32;
    const int64_t fixed = int64_t{i.offset} + (more.kind == Kind::kNone ? 0 : static_cast<int64_t>(w.scalar(more)));
    const int64_t end = descriptor[2];
    for (int l = 0; l < L; ++l) {
      const int64_t offset = fixed + (lane.kind == Kind::kNone ? int64_t{0} : int64_t{w.v[lane.reg][l]});
      w.address[l] = base + static_cast<uint64_t>(offset);
      left[l] = end - offset;
    }
  }
};

template <class A>
using Load = vector_memory::Load<Buffer, A>;
template <class A, Half16 From = Half16::kWord>
using Store = vector_memory::Store<Buffer, A, From>;

std::vector<Handler> build() {
  using enum Half16;
  std::vector<Handler> table = {
      vector_memory::LoadToShared<Buffer, Access<4>>::named("buffer_load_dword_lds"),
      vector_memory::LoadToShared<Buffer, Access<12>>::named("buffer_load_dwordx3_lds"),
      vector_memory::LoadToShared<Buffer, Access<16>>::named("buffer_load_dwordx4_lds"),
      Load<Access<1>>::named("buffer_load_ubyte"),
      Load<Access<1, true>>::named("buffer_load_sbyte"),
      Load<Access<2>>::named("buffer_load_ushort"),
      Load<Access<2, true>>::named("buffer_load_sshort"),
      Load<Access<4>>::named("buffer_load_dword"),
      Load<Access<8>>::named("buffer_load_dwordx2"),
      Load<Access<12>>::named("buffer_load_dwordx3"),
      Load<Access<16>>::named("buffer_load_dwordx4"),
      Load<Access<1, false, kLow>>::named("buffer_load_ubyte_d16"),
      Load<Access<1, false, kHigh>>::named("buffer_load_ubyte_d16_hi"),
      Load<Access<1, true, kLow>>::named("buffer_load_sbyte_d16"),
      Load<Access<1, true, kHigh>>::named("buffer_load_sbyte_d16_hi"),
      Load<Access<2, false, kLow>>::named("buffer_load_short_d16"),
      Load<Access<2, false, kHigh>>::named("buffer_load_short_d16_hi"),
      Store<Access<1>>::named("buffer_store_byte"),
      Store<Access<1>, kHigh>::named("buffer_store_byte_d16_hi"),
      Store<Access<2>>::named("buffer_store_short"),
      Store<Access<2>, kHigh>::named("buffer_store_short_d16_hi"),
      Store<Access<4>>::named("buffer_store_dword"),
      Store<Access<8>>::named("buffer_store_dwordx2"),
      Store<Access<12>>::named("buffer_store_dwordx3"),
      Store<Access<16>>::named("buffer_store_dwordx4"),
  };
  vector_memory::add_atomics<Buffer>(table, "buffer_atomic_");
  return table;
}

}  // namespace

Handlers buffer_memory() {
  static const std::vector<Handler> table = build();
  return table;
}

}  // namespace amdgpu
