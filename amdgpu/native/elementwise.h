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
  alignas(64) Stored<T> lane[L];
};

template <int L, auto F, class Indices, class R, class... A>
struct Elementwise;
template <int L, auto F, size_t... At, class R, class... A>
struct Elementwise<L, F, std::index_sequence<At...>, R, A...> {
  // Flattened: a call in a loop keeps it from becoming vector code.
  [[gnu::flatten]] static void run(Wave<L>& w, const Instruction& i) {
    std::tuple<Room<A, L>...> rooms;
    const std::tuple<const Stored<A>*...> sources{
        read<L, A>(w, i.operand[kResults<R> + At], std::get<At>(rooms).lane)...};
    // Nothing is written before all lanes are done, so a result may overlap any source.
    if constexpr (kResults<R> == 2) {
      using First = decltype(R::value);
      using Second = typename R::Second;
      Room<First, L> value;
      Room<Second, L> second;
#pragma GCC ivdep
      for (int l = 0; l < L; ++l) {
        const R both = F(loaded<A>(std::get<At>(sources)[l])...);
        value.lane[l] = stored<First>(both.value);
        second.lane[l] = both.second;
      }
      write<L, First>(w, i, i.operand[0], value.lane);
      write<L, Second>(w, i, i.operand[1], second.lane);
    } else {
      Room<R, L> result;
#pragma GCC ivdep
      for (int l = 0; l < L; ++l) result.lane[l] = stored<R>(F(loaded<A>(std::get<At>(sources)[l])...));
      write<L, R>(w, i, i.operand[0], result.lane);
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

// F of floats, on both of a pair.
template <int L, auto F, class Indices>
struct OnFloatPairs;
template <int L, auto F, size_t... At>
struct OnFloatPairs<L, F, std::index_sequence<At...>> {
  [[gnu::flatten]] static void run(Wave<L>& w, const Instruction& i) {
    Room<float, L> rooms[sizeof...(At)], result[2];
    for (int half = 0; half < 2; ++half) {
      const float* const sources[] = {read_float_of_pair<L>(w, i.operand[1 + At], half, rooms[At].lane)...};
      float (&r)[L] = result[half].lane;
#pragma GCC ivdep
      for (int l = 0; l < L; ++l) r[l] = F(sources[At][l]...);
    }
    write_float_pair<L>(w, i, result[0].lane, result[1].lane);
  }
  static constexpr char kTypes[] = {'F', ':', (At, 'F')..., 0};
};
template <auto F>
struct FloatPairsOf {
  template <class R, class... A>
  struct Of {
    template <int L>
    using On = OnFloatPairs<L, F, std::index_sequence_for<A...>>;
  };
  using All = typename SignatureOf<F>::template Apply<Of>;
};

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

// One that does F, which is of floats, on both floats of pairs.
template <auto F>
Handler float_pairs(std::string name) {
  using All = typename detail::FloatPairsOf<F>::All;
  return detail::handler(std::move(name), &All::template On<32>::run, &All::template On<64>::run,
                         All::template On<32>::kTypes, Flow::kLanes);
}

// One that does whichever of F a setting says: one for each of its values. They have the same types.
template <auto& Setting, auto F, auto... Others>
Handler lanes_by(std::string name) {
  return detail::handler(std::move(name), &detail::elementwise_by<32, Setting, F, Others...>,
                         &detail::elementwise_by<64, Setting, F, Others...>, detail::SignatureOf<F>::kTypes.text,
                         Flow::kLanes);
}

}  // namespace amdgpu
