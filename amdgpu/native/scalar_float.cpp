// SPDX-License-Identifier: Apache-2.0
// Scalar instructions on floats, from gfx11.5 on.
#include "floats.h"
#include "scalar.h"
#include "tables.h"

#include <vector>

namespace amdgpu {

namespace {

// A comparison is the set of relations in which it holds: 1 less, 2 equal, 4 greater, 8 unordered.
constexpr struct {
  const char* name;
  int set;
} kComparisons[] = {{"lt", 1}, {"eq", 2},  {"le", 3},   {"gt", 4},   {"lg", 5},   {"ge", 6},   {"o", 7},
                    {"u", 8},  {"nge", 9}, {"nlg", 10}, {"ngt", 11}, {"nle", 12}, {"neq", 13}, {"nlt", 14}};

template <int Set>
bool holds(float a, float b) {
  return (Set & 1 && a < b) || (Set & 2 && a == b) || (Set & 4 && a > b) || (Set & 8 && (is_nan(a) || is_nan(b)));
}

template <class T>
void add_comparisons(std::vector<Handler>& table, const std::string& type) {
  [&]<size_t... At>(std::index_sequence<At...>) {
    (table.push_back(scalars<[](bool& scc, T a, T b) {
      scc = holds<kComparisons[At].set>(widened(a), widened(b));
      return Nothing{};
    }>(std::string("s_cmp_") + kComparisons[At].name + "_" + type)),
     ...);
  }(std::make_index_sequence<std::size(kComparisons)>{});
}

// What float and Half have alike.
template <class T>
void add_arithmetic(std::vector<Handler>& table, const std::string& type) {
  const Handler both[] = {
      scalars<[](T a, T b) { return narrowed<T>(widened(a) + widened(b)); }>("s_add_" + type),
      scalars<[](T a, T b) { return narrowed<T>(widened(a) - widened(b)); }>("s_sub_" + type),
      scalars<[](T a, T b) { return narrowed<T>(widened(a) * widened(b)); }>("s_mul_" + type),
      scalars<[](T a, T b) { return max_ieee(a, b); }>("s_max_" + type),
      scalars<[](T a, T b) { return min_ieee(a, b); }>("s_min_" + type),
      scalars<[](T a, T b) { return max_number(a, b); }>("s_max_num_" + type),
      scalars<[](T a, T b) { return min_number(a, b); }>("s_min_num_" + type),
      scalars<[](T a, T b) { return maximum(a, b); }>("s_maximum_" + type),
      scalars<[](T a, T b) { return minimum(a, b); }>("s_minimum_" + type),
      scalars<[](T a) { return floored(a); }>("s_floor_" + type),
      scalars<[](T a) { return ceiled(a); }>("s_ceil_" + type),
      scalars<[](T a) { return truncated(a); }>("s_trunc_" + type),
      scalars<[](T a) { return rounded_to_even(a); }>("s_rndne_" + type),
  };
  table.insert(table.end(), std::begin(both), std::end(both));
  add_comparisons<T>(table, type);
}

}  // namespace

Handlers scalar_float() {
  static const std::vector<Handler> all = [] {
    std::vector<Handler> table{
        scalars<[](float a, float b, float c) { return std::fma(a, b, c); }>("s_fmac_f32"),
        scalars<[](Half a, Half b, Half c) { return fma(a, b, c); }>("s_fmac_f16"),
        scalars<[](float a, float b, float k) { return std::fma(a, b, k); }>("s_fmaak_f32"),
        scalars<[](float a, float k, float b) { return std::fma(a, k, b); }>("s_fmamk_f32"),
        scalars<[](int32_t a) { return static_cast<float>(a); }>("s_cvt_f32_i32"),
        scalars<[](uint32_t a) { return static_cast<float>(a); }>("s_cvt_f32_u32"),
        scalars<[](float a) { return to_int32(a); }>("s_cvt_i32_f32"),
        scalars<[](float a) { return to_uint32(a); }>("s_cvt_u32_f32"),
        scalars<[](float a) { return to_half(a); }>("s_cvt_f16_f32"),
        scalars<[](Half a) { return to_float(is_nan(a) ? quieted(a) : a); }>("s_cvt_f32_f16"),
        scalars<[](uint32_t a) {
          const Half high{static_cast<uint16_t>(a >> 16)};
          return to_float(is_nan(high) ? quieted(high) : high);
        }>("s_cvt_hi_f32_f16"),
        scalars<[](float a, float b) { return pair(to_half_towards_zero(a), to_half_towards_zero(b)); }>(
            "s_cvt_pk_rtz_f16_f32"),
    };
    add_arithmetic<float>(table, "f32");
    add_arithmetic<Half>(table, "f16");
    return table;
  }();
  return all;
}

}  // namespace amdgpu
