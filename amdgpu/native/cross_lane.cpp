// SPDX-License-Identifier: Apache-2.0
// Values that go from lane to lane without LDS.
#include <bit>
#include <string>
#include <utility>

#include "handler.h"
#include "tables.h"
#include "wave.h"

namespace amdgpu {

namespace {

// Of the first active lane, and of lane 0 if there is none.
template <int L>
void read_first_lane(Wave<L>& w, const Instruction& i) {
  const Operand& from = i.operand[1];
  const uint64_t exec = w.exec();
  const int lane = exec == 0 ? 0 : std::countr_zero(exec);
  w.set_scalar(i.operand[0].reg,
               from.kind == Kind::kVector ? w.v[from.reg][lane] : static_cast<uint32_t>(w.scalar(from)));
}

// Whether the lane is active does not matter, here and for writes.
template <int L>
void read_lane(Wave<L>& w, const Instruction& i) {
  w.set_scalar(i.operand[0].reg, w.v[i.operand[1].reg][w.scalar(i.operand[2]) % L]);
}

// The decoder names the destination twice, since its other lanes stay.
template <int L>
void write_lane(Wave<L>& w, const Instruction& i) {
  w.v[i.operand[0].reg][w.scalar(i.operand[3]) % L] = static_cast<uint32_t>(w.scalar(i.operand[2]));
}

// v_permlane16: lane l of each 16 gets the value of the lane that the l-th four bits of two scalars say, of its 16 or,
// with Other, of the neighbouring 16. `mode`: bit 0, lanes that are off give their values all the same; else, with bit
// 1, they give 0, and without it the destination stays.
template <bool Other>
struct PermuteRows {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    const uint64_t chosen = (w.scalar(i.operand[2]) & 0xffffffffu) | w.scalar(i.operand[3]) << 32;
    const uint32_t* from = w.v[i.operand[1].reg];
    uint32_t* to = w.v[i.operand[0].reg];
    uint32_t value[L];
    for (int l = 0; l < L; ++l) {
      const int source = ((l & ~15) ^ (Other ? 16 : 0)) | static_cast<int>(chosen >> (4 * (l & 15)) & 15);
      const bool gives = (i.mode & 1) || w.active[source];
      value[l] = gives ? from[source] : i.mode & 2 ? 0 : to[l];
    }
    for (int l = 0; l < L; ++l) to[l] = w.active[l] ? value[l] : to[l];
  }
};

// The halves of a wave of 64; nothing happens to one of 32.
template <int L>
void permute_halves(Wave<L>& w, const Instruction& i) {
  if constexpr (L == 64) {
    const uint32_t* from = w.v[i.operand[1].reg];
    uint32_t* to = w.v[i.operand[0].reg];
    uint32_t value[L];
    for (int l = 0; l < L; ++l) value[l] = from[l ^ 32];
    for (int l = 0; l < L; ++l) to[l] = w.active[l] ? value[l] : to[l];
  }
}

// The odd groups of N lanes of the first register and the even ones of the second change places.
template <int N>
struct Swap {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    if (w.exec() != w.kAll) w.fail(i, "with lanes off in EXEC is not modelled");
    uint32_t *a = w.v[i.operand[0].reg], *b = w.v[i.operand[1].reg];
    for (int at = 0; at + 2 * N <= L; at += 2 * N)
      for (int l = at; l < at + N; ++l) std::swap(a[l + N], b[l]);
  }
};

// What a row of DPP says; amdgpu/decode/lanes.py has the same numbers.
namespace dpp {
constexpr int kEight = 1 << 12;                                 // in `offset`
constexpr int kBoundZero = 1 << 8, kFetchInactive = 1 << 9;  // in `offset1`; kFetchInactive in `offset` with kEight
constexpr uint8_t kGfx9 = 1;  // in `mode`
constexpr int kNone = -1, kUnknown = -2;
}  // namespace dpp

// The lane that lane l gets its value from, kNone if there is none.
int source_lane(int control, int l, int lanes, bool gfx9) {
  using namespace dpp;  // NOLINT
  const int row = l & ~15, at = l & 15, by = control & 15;
  if (control < 0x100) return (l & ~3) | (control >> (2 * (l & 3)) & 3);  // quad_perm
  switch (control & ~15) {
    case 0x100: return by == 0 ? kUnknown : at + by < 16 ? l + by : kNone;  // row_shl
    case 0x110: return by == 0 ? kUnknown : at >= by ? l - by : kNone;  // row_shr
    case 0x120: return by == 0 ? kUnknown : row | ((at - by) & 15);  // row_ror
    case 0x150: return row | by;  // row_newbcast (gfx90a), row_share
    case 0x160: return gfx9 ? kUnknown : row | (at ^ by);  // row_xmask
    default: break;
  }
  switch (control) {
    case 0x140: return row | (15 - at);  // row_mirror
    case 0x141: return row | (at ^ 7);  // row_half_mirror
    default: break;
  }
  if (!gfx9) return kUnknown;
  switch (control) {
    case 0x130: return l + 1 < lanes ? l + 1 : kNone;  // wave_shl
    case 0x134: return (l + 1) % lanes;  // wave_rol
    case 0x138: return l - 1;  // wave_shr
    case 0x13c: return (l + lanes - 1) % lanes;  // wave_ror
    case 0x142: return row - 1;  // row_bcast:15
    case 0x143: return l >= 32 ? 31 : kNone;  // row_bcast:31
    default: return kUnknown;
  }
}

// Makes the first register what the second one's lanes give, for the instruction that follows. A lane that nobody gives
// anything, because its source lies outside or is off, or that a mask leaves out, takes no part in that instruction:
// `active` leaves it out until dpp_end. With bound_ctrl a source that lies outside or is off gives 0 instead. With fi
// those that are off give what they have.
template <int L>
void begin_dpp(Wave<L>& w, const Instruction& i) {
  using namespace dpp;  // NOLINT
  const Operand &to = i.operand[0], &from = i.operand[1];
  const bool eight = i.offset & kEight, zero = eight || i.offset1 & kBoundZero;
  const bool inactive = (eight ? i.offset : i.offset1) & kFetchInactive;
  int source[L];
  uint32_t takes_part[L];
  for (int l = 0; l < L; ++l) {
    int at = eight ? (l & ~7) | (i.offset1 >> (3 * (l & 7)) & 7) : source_lane(i.offset, l, L, i.mode & kGfx9);
    if (at == kUnknown) w.fail(i, "DPP control " + std::to_string(i.offset) + " is not known");
    if (at >= 0 && !inactive && !w.active[at]) at = kNone;
    const bool enabled = eight || ((i.offset1 >> (4 + l / 16) & 1) && (i.offset1 >> (l % 16 / 4) & 1));
    source[l] = at;
    takes_part[l] = enabled && (at >= 0 || zero) ? w.active[l] : 0;
  }
  for (int r = 0; r < to.count; ++r) {
    const uint32_t* given = w.v[from.reg + r];
    uint32_t* got = w.v[to.reg + r];
    for (int l = 0; l < L; ++l) got[l] = source[l] >= 0 ? given[source[l]] : 0;
  }
  std::memcpy(w.active, takes_part, sizeof(w.active));
}

template <int L>
void end_dpp(Wave<L>& w, const Instruction&) {
  w.exec_changed();
}

}  // namespace

Handlers cross_lane() {
  static const Handler table[] = {
      {"v_readfirstlane_b32", read_first_lane<32>, read_first_lane<64>, "u:u", Flow::kOwn},
      {"v_readlane_b32", read_lane<32>, read_lane<64>, "u:uu", Flow::kOwn},
      {"v_writelane_b32", write_lane<32>, write_lane<64>, "u:uuu", Flow::kOwn},
      {"v_permlane16_b32", PermuteRows<false>::run<32>, PermuteRows<false>::run<64>, "u:uuu", Flow::kOwn},
      {"v_permlanex16_b32", PermuteRows<true>::run<32>, PermuteRows<true>::run<64>, "u:uuu", Flow::kOwn},
      {"v_permlane64_b32", permute_halves<32>, permute_halves<64>, "u:u", Flow::kOwn},
      {"v_permlane16_swap_b32", Swap<16>::run<32>, Swap<16>::run<64>, "uu:", Flow::kOwn},
      {"v_permlane32_swap_b32", Swap<32>::run<32>, Swap<32>::run<64>, "uu:", Flow::kOwn},
      {"dpp", begin_dpp<32>, begin_dpp<64>, "x:x", Flow::kOwn},
      {"dpp_end", end_dpp<32>, end_dpp<64>, ":", Flow::kOwn},
  };
  return table;
}

}  // namespace amdgpu
