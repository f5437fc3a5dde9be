// SPDX-License-Identifier: Apache-2.0
// Loads, stores and atomics of lanes, whatever says where: `Where` has the places of operands and addresses(), which
// fills Wave::address for the active lanes and returns how many bytes each lane may touch, or nothing if that is
// unbounded.
#pragma once

#include <atomic>
#include <string>
#include <vector>

#include "access.h"
#include "atomic_operations.h"
#include "handler.h"

namespace amdgpu::vector_memory {

// Places of operands. Returning atomics of global memory have their destination before the others.
struct Places {
  int data, address, base;
};

// What another wave stores meanwhile may be old or new: lanes that read it get what nobody has written. To read it is
// no fault yet: lanes without work of their own may read others' and make nothing of it.
template <class A, int L>
void spoil_races(const Wave<L>& w, Staged<A, L>& staged) {
  for (int l = 0; l < L; ++l) {
    if (!w.active[l] || !w.group->stores.race(w.number, w.address[l], A::kBytes)) continue;
    for (uint32_t& word : staged.lane[l]) word = w.unwritten[l];
  }
}

// Of the active lanes, to where a load's registers are put together.
template <class Where, class A, int L>
void fetch(Wave<L>& w, const Instruction& i, const Places& places, Staged<A, L>& staged) {
  w.access_bytes = A::kBytes;
  if constexpr (Where::kBounded) {
    alignas(64) int64_t left[L];
    Where::addresses(w, i, places, left);
    for (int l = 0; l < L; ++l) {
      if (!w.active[l]) continue;
      const auto* from = reinterpret_cast<const uint8_t*>(w.address[l]);
      if (left[l] >= A::kBytes) {
        A::fetch(staged.lane[l], from);
      } else {  // what lies beyond reads as 0
        for (int c = 0; c < A::kRegisters; ++c) {
          staged.lane[l][c] = 0;
          if (A::kBytes > 4 && left[l] >= 4 * (c + 1)) std::memcpy(&staged.lane[l][c], from + 4 * c, 4);
        }
      }
    }
  } else {
    Where::addresses(w, i, places);
    if (w.exec() == w.kAll) {
      uint64_t differs = 0;
      for (uint64_t l = 0; l < L; ++l) differs |= w.address[l] ^ (w.address[0] + l * A::kBytes);
      if (A::kBytes >= 4 && differs == 0) {
        std::memcpy(staged.lane, reinterpret_cast<const void*>(w.address[0]), sizeof(staged.lane));
      } else {
        for (int l = 0; l < L; ++l) A::fetch(staged.lane[l], reinterpret_cast<const void*>(w.address[l]));
      }
    } else {
      for (int l = 0; l < L; ++l) {
        if (w.active[l]) A::fetch(staged.lane[l], reinterpret_cast<const void*>(w.address[l]));
      }
    }
  }
  if (!w.group->stores.none()) spoil_races(w, staged);
}

template <class Where, class A>
struct Load {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    Staged<A, L> staged;
    fetch<Where>(w, i, Where::kLoad, staged);
    const int reg = i.operand[Where::kLoad.data].reg;
    to_registers(w, reg, staged);
    begin_load(w, i, reg, A::kRegisters);
  }

  static Handler named(const char* name) { return {name, run<32>, run<64>, Where::kLoadTypes, Flow::kOwn}; }
};

// Into LDS, past the registers: lane after lane, from M0 and the instruction's offset on. Races are not looked for.
template <class Where, class A>
struct LoadToShared {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    Staged<A, L> staged;
    fetch<Where>(w, i, Where::kToShared, staged);
    const uint64_t first = uint64_t{w.s[scalar_register::kM0]} + static_cast<uint64_t>(int64_t{i.offset});
    for (uint64_t l = 0; l < L; ++l) {
      if (!w.active[l]) continue;
      const uint64_t at = first + l * A::kBytes;
      if (at + A::kBytes > w.group->shared.size()) {
        w.fail(i, ("lane " + std::to_string(l) + " writes LDS address " + std::to_string(at) + " of " +
                   std::to_string(w.group->shared.size()))
                      .c_str());
      }
      std::memcpy(w.group->shared.data() + at, staged.lane[l], A::kBytes);
    }
    w.pending.issue(i.counter);
  }

  static Handler named(const char* name) { return {name, run<32>, run<64>, Where::kToSharedTypes, Flow::kOwn}; }
};

// Of two lanes that write the same place, the higher one's value stays.
template <class Where, class A, Half16 From = Half16::kWord>
struct Store {
  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    w.access_bytes = A::kBytes;
    Staged<A, L> staged;
    from_registers(w, i.operand[Where::kStore.data].reg, staged, From);
    if constexpr (Where::kBounded) {
      alignas(64) int64_t left[L];
      Where::addresses(w, i, Where::kStore, left);
      for (int l = 0; l < L; ++l) {
        if (!w.active[l]) continue;
        auto* to = reinterpret_cast<uint8_t*>(w.address[l]);
        if (left[l] >= A::kBytes) {
          A::put(to, staged.lane[l]);
        } else if (A::kBytes > 4 && left[l] >= 4) {
          std::memcpy(to, staged.lane[l], static_cast<size_t>(left[l] / 4 * 4));
        }
      }
    } else {
      Where::addresses(w, i, Where::kStore);
      for (int l = 0; l < L; ++l) {
        if (w.active[l]) A::put(reinterpret_cast<void*>(w.address[l]), staged.lane[l]);
      }
    }
    const uint32_t number = w.pending.issue(i.counter);
    if (w.group->checked && w.group->shares_memory()) {
      w.group->stores.add(w.number, number, w.address, w.active, A::kBytes);
    }
  }

  static Handler named(const char* name) { return {name, run<32>, run<64>, Where::kStoreTypes, Flow::kOwn}; }
};

// Other workgroups run in other threads, hence atomic for the host as well.
template <class Op, class T>
T update(void* at, T x) {
  std::atomic_ref<T> word(*static_cast<T*>(at));
  T old = word.load(std::memory_order_relaxed);
  while (!word.compare_exchange_weak(old, Op::apply(old, x))) {
  }
  return old;
}

struct CompareAndSwap {};  // the lane's data: the new value, then the one to compare with

template <class Where, class Op, class T, bool Returns>
struct Atomic {
  static constexpr int kRegisters = sizeof(T) / 4, kOperands = std::is_same_v<Op, CompareAndSwap> ? 2 : 1;
  using Old = Access<sizeof(T)>;

  template <int L>
  static void run(Wave<L>& w, const Instruction& i) {
    w.access_bytes = sizeof(T);
    constexpr Places kPlaces = Returns ? Where::kReturning : Where::kAtomic;
    Staged<Access<kOperands * sizeof(T)>, L> data;
    Staged<Old, L> old;
    from_registers(w, i.operand[kPlaces.data].reg, data);
    alignas(64) int64_t left[L];
    if constexpr (Where::kBounded) Where::addresses(w, i, kPlaces, left);
    else Where::addresses(w, i, kPlaces);
    for (int l = 0; l < L; ++l) {
      if (!w.active[l]) continue;
      T before{};
      if (!Where::kBounded || left[l] >= static_cast<int64_t>(sizeof(T))) {
        if (w.address[l] % sizeof(T)) {
          w.fail(i, "lane " + std::to_string(l) + ": an atomic access must be aligned to its " +
                        std::to_string(sizeof(T)) + " bytes");
        }
        T x[kOperands];
        std::memcpy(x, data.lane[l], sizeof(x));
        void* at = reinterpret_cast<void*>(w.address[l]);
        if constexpr (kOperands == 2) {
          before = x[1];
          std::atomic_ref<T>(*static_cast<T*>(at)).compare_exchange_strong(before, x[0]);
        } else {
          before = update<Op>(at, x[0]);
        }
      }
      std::memcpy(old.lane[l], &before, sizeof(T));
    }
    if constexpr (Returns) {
      const int reg = i.operand[0].reg;
      to_registers(w, reg, old);
      begin_load(w, i, reg, kRegisters);
    } else {
      w.pending.issue(i.counter);
    }
  }

  static Handler named(const std::string& name) {
    return {name, run<32>, run<64>, Returns ? Where::kReturningTypes : Where::kAtomicTypes, Flow::kOwn};
  }
};

// Both forms: the one that returns the value before has _rtn in its name.
template <class Where, class Op, class T>
void add_atomic(std::vector<Handler>& table, const std::string& name) {
  table.push_back(Atomic<Where, Op, T, false>::named(name));
  table.push_back(Atomic<Where, Op, T, true>::named(name + "_rtn"));
}

template <class Where>
void add_atomics(std::vector<Handler>& table, const std::string& prefix) {
  using namespace atomic;  // NOLINT
  const auto both = [&]<class Op, class T = uint32_t, class Wide = uint64_t>(const char* name) {
    add_atomic<Where, Op, T>(table, prefix + name);
    add_atomic<Where, Op, Wide>(table, prefix + name + "_x2");
  };
  both.template operator()<Exchange>("swap");
  both.template operator()<CompareAndSwap>("cmpswap");
  both.template operator()<Add>("add");
  both.template operator()<Subtract>("sub");
  both.template operator()<Minimum, int32_t, int64_t>("smin");
  both.template operator()<Minimum>("umin");
  both.template operator()<Maximum, int32_t, int64_t>("smax");
  both.template operator()<Maximum>("umax");
  both.template operator()<And>("and");
  both.template operator()<Or>("or");
  both.template operator()<Xor>("xor");
  both.template operator()<Increment>("inc");
  both.template operator()<Decrement>("dec");
  add_atomic<Where, Add, float>(table, prefix + "add_f32");
  add_atomic<Where, Minimum, float>(table, prefix + "min_f32");
  add_atomic<Where, Maximum, float>(table, prefix + "max_f32");
  add_atomic<Where, Add, double>(table, prefix + "add_f64");
  add_atomic<Where, Minimum, double>(table, prefix + "min_f64");
  add_atomic<Where, Maximum, double>(table, prefix + "max_f64");
  add_atomic<Where, AddHalves, uint32_t>(table, prefix + "pk_add_f16");
  add_atomic<Where, AddBrainHalves, uint32_t>(table, prefix + "pk_add_bf16");
}

}  // namespace amdgpu::vector_memory
