// SPDX-License-Identifier: Apache-2.0
// What an op demands of its arguments, as a table: each row names an argument and what must hold of it. The op returns
// the name of the first row that does not hold, and Python words it (rocmforge_plugin/ops/checks.py).
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "tensor.h"

namespace rocmforge {

template <class Call>
struct Condition {
  const char* argument;
  const char* what;
  bool (*holds)(const Call&);

  std::string name() const { return std::string(argument) + "." + what; }
};

// Tables one behind the other. Rows are asked in their order, so a row may rely on those before it: that a tensor could
// be read, that it has the dimension whose size is asked for.
template <class Call, size_t... kSizes>
constexpr auto conditions(const std::array<Condition<Call>, kSizes>&... tables) {
  std::array<Condition<Call>, (kSizes + ...)> all{};
  size_t at = 0;
  const auto append = [&](const auto& table) {
    for (const auto& row : table) all[at++] = row;
  };
  (append(tables), ...);
  return all;
}

template <class Call>
constexpr std::array<Condition<Call>, 1> condition(const char* argument, const char* what, bool (*holds)(const Call&)) {
  return {{{argument, what, holds}}};
}

// What an op returns: nothing where it launched, or the name of the condition that failed.
using Refusal = std::optional<std::string>;

// The first row of kTable, a constant, that does not hold. The rows are unrolled, so that they cost no calls.
template <const auto& kTable, class Call>
Refusal first_failed(const Call& call) {
  const Condition<Call>* failed = nullptr;
  [&]<size_t... kRows>(std::index_sequence<kRows...>) {
    (void)((kTable[kRows].holds(call) || (failed = &kTable[kRows], false)) && ...);
  }(std::make_index_sequence<kTable.size()>{});
  return failed ? Refusal(failed->name()) : Refusal();
}

// Adds a table's names to the module's `conditions`, by op, for tests.
template <class Table>
void list_conditions(pybind11::module_& module, const char* op, const Table& table) {
  if (!pybind11::hasattr(module, "conditions")) module.attr("conditions") = pybind11::dict();
  pybind11::list names;
  for (const auto& row : table) names.append(row.name());
  module.attr("conditions")[op] = pybind11::tuple(names);
}

}  // namespace rocmforge
