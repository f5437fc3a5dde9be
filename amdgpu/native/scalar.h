// SPDX-License-Identifier: Apache-2.0
// A function of scalar values becomes a handler. One whose first parameter is `bool& scc` reads or writes SCC.
#pragma once

#include <cstddef>
#include <string>
#include <tuple>
#include <utility>

#include "handler.h"
#include "operands.h"

namespace amdgpu {

struct Nothing {};  // the result of comparisons, which go to SCC alone

namespace detail {

template <class T>
T scalar_source(const auto& w, const Operand& o) {
  uint64_t value = w.scalar(o);
  if (o.part != Part::kWhole) value = take_part(static_cast<uint32_t>(value), o.part, false);
  return std::bit_cast<T>(SignChange<BitsOf<T>>(o.flags)(static_cast<BitsOf<T>>(value)));
}

template <class R>
void scalar_result(auto& w, const Operand& o, R r) {
  const auto bits = std::bit_cast<BitsOf<R>>(r);
  w.set_scalar(o.reg, static_cast<uint32_t>(bits));
  if constexpr (sizeof(R) == 8) {
    if (o.reg != scalar_register::kNull) w.set_scalar(o.reg + 1, static_cast<uint32_t>(bits >> 32));
  }
}

template <class R, class... A>
inline constexpr auto kScalarTypes = [] {
  if constexpr (std::is_same_v<R, Nothing>) return TypeString{':', letter<A>()..., 0};
  else return TypeString{letter<R>(), ':', letter<A>()..., 0};
}();

template <class F>
struct ScalarSignature;
template <class C, class R, class... A>
struct ScalarSignature<R (C::*)(A...) const> {
  static R call(auto function, bool&, A... a) { return function(a...); }
  using Result = R;
  using Sources = std::tuple<A...>;
  static constexpr auto kTypes = kScalarTypes<R, A...>;
};
template <class C, class R, class... A>
struct ScalarSignature<R (C::*)(bool&, A...) const> {
  static R call(auto function, bool& scc, A... a) { return function(scc, a...); }
  using Result = R;
  using Sources = std::tuple<A...>;
  static constexpr auto kTypes = kScalarTypes<R, A...>;
};

template <auto F>
using ScalarSignatureOf = ScalarSignature<decltype(&decltype(F)::operator())>;

template <int L, auto F>
void scalar_run(Wave<L>& w, const Instruction& i) {
  using S = ScalarSignatureOf<F>;
  constexpr bool kResult = !std::is_same_v<typename S::Result, Nothing>;
  [&]<size_t... At>(std::index_sequence<At...>) {
    bool scc = w.scc;
    const auto r =
        S::call(F, scc, scalar_source<std::tuple_element_t<At, typename S::Sources>>(w, i.operand[kResult + At])...);
    if constexpr (kResult) scalar_result(w, i.operand[0], r);
    w.scc = scc;
  }(std::make_index_sequence<std::tuple_size_v<typename S::Sources>>{});
}

// EXEC becomes F of the source and of EXEC; the destination gets EXEC as it was before, or as it is now.
template <int L, class Mask, auto F, bool New>
void exec_run(Wave<L>& w, const Instruction& i) {
  const Operand exec{Kind::kScalar, sizeof(Mask) / 4, Part::kWhole, 0, scalar_register::kExec, 0};
  const auto before = scalar_source<Mask>(w, exec);
  const Mask now = F(scalar_source<Mask>(w, i.operand[1]), before);
  scalar_result(w, exec, now);
  scalar_result(w, i.operand[0], New ? now : before);
  w.scc = now != 0;
}

// Calls the function that a setting of the process chooses.
template <int L, auto& Setting, auto... F>
void scalar_by(Wave<L>& w, const Instruction& i) {
  static constexpr Run<L> kChoices[] = {&scalar_run<L, F>...};
  kChoices[static_cast<int>(Setting)](w, i);
}

}  // namespace detail

// A handler of the name that does F on scalar operands.
template <auto F>
Handler scalars(std::string name) {
  return detail::handler(std::move(name), &detail::scalar_run<32, F>, &detail::scalar_run<64, F>,
                         detail::ScalarSignatureOf<F>::kTypes.text, Flow::kScalar);
}

// One that does whichever of F a setting says: one for each of its values. They have the same types.
template <auto& Setting, auto F, auto... Others>
Handler scalars_by(std::string name) {
  return detail::handler(std::move(name), &detail::scalar_by<32, Setting, F, Others...>,
                         &detail::scalar_by<64, Setting, F, Others...>, detail::ScalarSignatureOf<F>::kTypes.text,
                         Flow::kScalar);
}

// A handler for `s_..._saveexec`, whose result is EXEC as it was before, or for `s_..._wrexec`, whose result is the new
// one: F of the source and of EXEC, as Mask.
template <class Mask, auto F, bool New = false>
Handler exec_masks(std::string name) {
  static constexpr auto kTypes = detail::kScalarTypes<Mask, Mask>;
  return detail::handler(std::move(name), &detail::exec_run<32, Mask, F, New>, &detail::exec_run<64, Mask, F, New>,
                         kTypes.text, Flow::kScalar);
}

}  // namespace amdgpu
