// SPDX-License-Identifier: Apache-2.0
#include "twin.h"

namespace amdgpu {

Use use_of(const std::string& name) {
  const auto starts = [&](const char* with) { return name.starts_with(with); };
  const auto has = [&](const char* what) { return name.find(what) != std::string::npos; };
  if (starts("s_cbranch_scc")) return {Use::kScc};
  if (starts("s_cbranch_vcc")) return {Use::kVcc};
  if (starts("s_cbranch_exec")) return {Use::kExec};
  if (has("permute") || has("swizzle")) return {};
  const bool atomic = has("_atomic_") || (starts("ds_") && !has("_read") && !has("_write"));
  if (starts("ds_")) return {atomic ? Use::kSources : Use::kFirstSource, ~0u, false, atomic};
  if (starts("s_load") || starts("s_buffer_load")) return {Use::kSources};
  if (starts("global_") || starts("buffer_") || starts("flat_")) {
    const uint32_t data = has("_byte") ? 0xffu : has("_short") ? 0xffffu : ~0u;
    return {Use::kSources, data, starts("buffer_store"), atomic};
  }
  return {};
}

template <int L>
void compare_uses(const Wave<L>& wave, const Wave<L>& twin, const Instruction& i, Use use) {
  constexpr char kWhat[] =
      " depends on what nobody has written (a register or LDS), or on memory that another wave stores meanwhile";
  const auto fail = [&](const std::string& what) { throw Fault(*wave.program, i, wave.number, what + kWhat); };
  switch (use.of) {
    case Use::kNothing: return;
    case Use::kScc:
      if (wave.scc != twin.scc) fail("SCC");
      return;
    case Use::kVcc:
      if (wave.mask_at(scalar_register::kVcc) != twin.mask_at(scalar_register::kVcc)) fail("VCC");
      return;
    case Use::kExec: break;  // as for all others
    case Use::kSources:
    case Use::kFirstSource: break;
  }
  if (wave.exec() != twin.exec()) fail("EXEC");
  if (use.of == Use::kExec) return;
  const int first = i.results, last = use.of == Use::kFirstSource ? first + 1 : i.operands;
  for (int at = first; at < last; ++at) {
    const Operand& o = i.operand[at];
    if (o.kind == Kind::kScalar && wave.scalar(o) != twin.scalar(o)) fail("s" + std::to_string(o.reg));
    if (o.kind != Kind::kVector) continue;
    uint32_t bits = (at == first) == use.data_first ? use.data : ~0u;
    if (o.part == Part::kHigh) bits <<= 16;
    for (int r = o.reg; r < o.reg + o.count; ++r) {
      for (int l = 0; l < L; ++l) {
        if (((wave.v[r][l] ^ twin.v[r][l]) & bits & wave.active[l]) == 0) continue;
        fail("lane " + std::to_string(l) + ": " + (r < 256 ? "v" + std::to_string(r) : "a" + std::to_string(r - 256)));
      }
    }
  }
}

template <int L>
void copy_results(const Wave<L>& wave, Wave<L>& twin, const Instruction& i) {
  for (int at = 0; at < i.results; ++at) {
    const Operand& o = i.operand[at];
    if (o.kind != Kind::kVector) continue;
    for (int r = o.reg; r < o.reg + o.count; ++r) {
      for (int l = 0; l < L; ++l) {
        if (wave.active[l]) twin.v[r][l] = wave.v[r][l];
      }
    }
  }
  twin.group->shared = wave.group->shared;
}

template void compare_uses<32>(const Wave<32>&, const Wave<32>&, const Instruction&, Use);
template void compare_uses<64>(const Wave<64>&, const Wave<64>&, const Instruction&, Use);
template void copy_results<32>(const Wave<32>&, Wave<32>&, const Instruction&);
template void copy_results<64>(const Wave<64>&, Wave<64>&, const Instruction&);

}  // namespace amdgpu
