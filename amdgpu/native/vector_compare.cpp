// SPDX-License-Identifier: Apache-2.0
// Comparisons, whose results are masks of lanes, and selection by a mask.
#include <string>
#include <vector>

#include "elementwise.h"
#include "floats.h"
#include "tables.h"

namespace amdgpu {

namespace {

template <class T>
bool is_class(T x, uint32_t classes) {
  const bool infinite = is_infinite(x), zero = is_zero(x), denormal = is_denormal(x);
  const uint32_t kind = infinite   ? 0
                        : zero     ? 3
                        : denormal ? 2
                                   : 1;  // negative ones count up from 2, others down from 9
  const uint32_t bit = is_nan(x) ? (is_signalling(x) ? 0 : 1) : sign(x) ? 2 + kind : 9 - kind;
  return classes >> bit & 1;
}

// A comparison is the set of relations in which it holds: 1 less, 2 equal, 4 greater, 8 unordered. Its name is the one
// at that place.
constexpr const char* kFloatNames[] = {"f", "lt",  "eq",  "le",  "gt",  "lg",  "ge",  "o",
                                       "u", "nge", "nlg", "ngt", "nle", "neq", "nlt", "tru"};
constexpr const char* kIntegerNames[] = {"f", "lt", "eq", "le", "gt", "ne", "ge", "t"};

template <int Set>
bool holds(auto a, auto b) {
  return (bool(Set & 1) & (a < b)) | (bool(Set & 2) & (a == b)) | (bool(Set & 4) & (a > b)) |
         (bool(Set & 8) & !(a <= b) & !(a >= b));
}

template <class T>
void add_floats(std::vector<Handler>& table, const std::string& type) {
  [&]<size_t... Set>(std::index_sequence<Set...>) {
    (table.push_back(lanes<[](T a, T b) { return holds<Set>(widened(a), widened(b)); }>(std::string("v_cmp_") +
                                                                                        kFloatNames[Set] + "_" + type)),
     ...);
  }(std::make_index_sequence<16>{});
}

template <class T>
void add_integers(std::vector<Handler>& table, const std::string& type) {
  [&]<size_t... Set>(std::index_sequence<Set...>) {
    (table.push_back(
         lanes<[](T a, T b) { return holds<Set>(a, b); }>(std::string("v_cmp_") + kIntegerNames[Set] + "_" + type)),
     ...);
  }(std::make_index_sequence<8>{});
}

}  // namespace

Handlers vector_compare() {
  static const std::vector<Handler> all = [] {
    std::vector<Handler> table{
        lanes<[](uint32_t a, uint32_t b, bool second) { return second ? b : a; }>("v_cndmask_b32"),
        lanes<[](Half a, uint16_t classes) { return is_class(a, classes); }>("v_cmp_class_f16"),
        lanes<[](float a, uint32_t classes) { return is_class(a, classes); }>("v_cmp_class_f32"),
        lanes<[](double a, uint32_t classes) { return is_class(a, classes); }>("v_cmp_class_f64"),
    };
    add_floats<Half>(table, "f16");
    add_floats<float>(table, "f32");
    add_floats<double>(table, "f64");
    add_integers<int16_t>(table, "i16");
    add_integers<uint16_t>(table, "u16");
    add_integers<int32_t>(table, "i32");
    add_integers<uint32_t>(table, "u32");
    add_integers<int64_t>(table, "i64");
    add_integers<uint64_t>(table, "u64");
    return table;
  }();
  return all;
}

}  // namespace amdgpu
