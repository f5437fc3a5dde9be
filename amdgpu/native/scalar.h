// SPDX-License-Identifier: Apache-2.0
// A function of scalar values becomes a handler. One whose first parameter is `bool& scc` reads or writes SCC.
#pragma once

#include "elementwise.h"

namespace amdgpu {

struct Nothing {};  // the result of comparisons, which go to SCC alone

namespace detail {

template <class T>
T scalar_source(const auto& w, const Operand& o) {
  uint64_t value = w.scalar(o);
  if (o.part != Part::kWhole) value = take_part(static_cast<uint32_t>(value), o.part, false);
  T x = from_constant<T>(value);
  if (o.flags & (operand_flag::kNegate | operand_flag::kAbsolute)) {
    x = with_sign_flags(x, o.flags & operand_flag::kAbsolute, o.flags & operand_flag::kNegate);
  }
  return x;
}

template <class R>
void scalar_result(auto& w, const Operand& o, R r) {
  if constexpr (!std::is_same_v<R, Nothing>) {
    if constexpr (sizeof(R) == 8) {
      const auto bits = std::bit_cast<uint64_t>(r);
      if (o.reg == scalar_register::kNull) return;
      w.s[o.reg] = static_cast<uint32_t>(bits);
      w.s[o.reg + 1] = static_cast<uint32_t>(bits >> 32);
      if (o.reg >= scalar_register::kExec) w.exec_changed();
    } else if constexpr (sizeof(R) == 4) {
      w.set_scalar(o.reg, std::bit_cast<uint32_t>(r));
    } else {
      w.set_scalar(o.reg, std::bit_cast<uint16_t>(r));
    }
  }
}

template <class F>
struct ScalarSignature;
template <class C, class R, class... A>
struct ScalarSignature<R (C::*)(A...) const> {
  static constexpr bool kScc = false;
  using Result = R;
  using Sources = std::tuple<A...>;
};
template <class C, class R, class... A>
struct ScalarSignature<R (C::*)(bool&, A...) const> {
  static constexpr bool kScc = true;
  using Result = R;
  using Sources = std::tuple<A...>;
};

template <auto F>
using ScalarSignatureOf = ScalarSignature<decltype(&decltype(F)::operator())>;

template <class R>
constexpr int kScalarResults = std::is_same_v<R, Nothing> ? 0 : 1;

template <int L, auto F, class S, class... A, size_t... At>
void scalar_apply(Wave<L>& w, const Instruction& i, std::tuple<A...>*, std::index_sequence<At...>) {
  using R = typename S::Result;
  constexpr int kFirst = kScalarResults<R>;
  if constexpr (S::kScc) {
    bool scc = w.scc;
    const R r = F(scc, scalar_source<A>(w, i.operand[kFirst + At])...);
    scalar_result(w, i.operand[0], r);
    w.scc = scc;
  } else {
    scalar_result(w, i.operand[0], F(scalar_source<A>(w, i.operand[kFirst + At])...));
  }
}

template <int L, auto F>
void scalar_run(Wave<L>& w, const Instruction& i) {
  using S = ScalarSignatureOf<F>;
  scalar_apply<L, F, S>(w, i, static_cast<typename S::Sources*>(nullptr),
                        std::make_index_sequence<std::tuple_size_v<typename S::Sources>>{});
}

template <class R, class... A>
std::string scalar_types(std::tuple<A...>*) {
  std::string results;
  if constexpr (!std::is_same_v<R, Nothing>) results = {letter<R>()};
  return results + ":" + std::string{letter<A>()...};
}

}  // namespace detail

// A handler of the name that does F on scalar operands.
template <auto F>
Handler scalars(const char* name) {
  using S = detail::ScalarSignatureOf<F>;
  return {name, &detail::scalar_run<32, F>, &detail::scalar_run<64, F>,
          detail::scalar_types<typename S::Result>(static_cast<typename S::Sources*>(nullptr)), Flow::kScalar};
}

}  // namespace amdgpu
