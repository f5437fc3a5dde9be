// SPDX-License-Identifier: Apache-2.0
// A function of one lane's values becomes a handler of waves: its parameter types say how operands are read.
#pragma once

#include <cstddef>
#include <string>
#include <tuple>
#include <utility>

#include "handler.h"
#include "operands.h"

namespace amdgpu {

namespace detail {

// Where a source that is not simply a register is put together. Its constructor does nothing, so that it costs nothing.
template <class T, int L>
struct Room {
  Room() {}  // NOLINT
  alignas(64) T lane[L];
};

template <int L, auto F, class Indices, class R, class... A>
struct Elementwise;
template <int L, auto F, size_t... At, class R, class... A>
struct Elementwise<L, F, std::index_sequence<At...>, R, A...> {
  static void run(Wave<L>& w, const Instruction& i) {
    std::tuple<Room<A, L>...> rooms;
    const std::tuple<const A*...> sources{read<L, A>(w, i.operand[kResults<R> + At], std::get<At>(rooms).lane)...};
    // Nothing is written before all lanes are done, so a result may overlap any source.
    if constexpr (kResults<R> == 2) {
      alignas(64) decltype(R::value) value[L];
      alignas(64) decltype(R::second) second[L];
#pragma GCC ivdep
      for (int l = 0; l < L; ++l) {
        const R both = F(std::get<At>(sources)[l]...);
        value[l] = both.value;
        second[l] = both.second;
      }
      write<L>(w, i, i.operand[0], value);
      write<L>(w, i, i.operand[1], second);
    } else {
      alignas(64) R result[L];
#pragma GCC ivdep
      for (int l = 0; l < L; ++l) result[l] = F(std::get<At>(sources)[l]...);
      write<L>(w, i, i.operand[0], result);
    }
  }
};

template <int L, auto F>
struct ElementwiseOf {
  template <class R, class... A>
  using Of = Elementwise<L, F, std::index_sequence_for<A...>, R, A...>;
};
template <int L, auto F>
inline constexpr Run<L> kElementwise = &SignatureOf<F>::template Apply<ElementwiseOf<L, F>::template Of>::run;

// Calls the function that a setting of the process chooses.
template <int L, auto& Setting, auto... F>
void elementwise_by(Wave<L>& w, const Instruction& i) {
  static constexpr Run<L> kChoices[] = {kElementwise<L, F>...};
  kChoices[static_cast<int>(Setting)](w, i);
}

}  // namespace detail

// A handler of the name that does F in every active lane.
template <auto F>
Handler lanes(std::string name) {
  return detail::handler(std::move(name), detail::kElementwise<32, F>, detail::kElementwise<64, F>,
                         detail::SignatureOf<F>::kTypes.text, Flow::kLanes);
}

// One that does whichever of F a setting says: one for each of its values. They have the same types.
template <auto& Setting, auto F, auto... Others>
Handler lanes_by(std::string name) {
  return detail::handler(std::move(name), &detail::elementwise_by<32, Setting, F, Others...>,
                         &detail::elementwise_by<64, Setting, F, Others...>, detail::SignatureOf<F>::kTypes.text,
                         Flow::kLanes);
}

}  // namespace amdgpu
