// SPDX-License-Identifier: Apache-2.0
#include "api.h"

#include <cstring>
#include <memory>
#include <sstream>

#include "matrix.h"
#include "registry.h"
#include "transcendentals.h"

namespace amdgpu {

Settings& settings() {
  static Settings all;
  return all;
}

std::string launch_with(Kernel& kernel, const uint32_t grid[3], const uint32_t block[3], uint32_t shared,
                        const void* const* arguments) {
  const Program& program = kernel.program;
  const Entry& entry = program.entry;
  // Twice the alignment that the ABI asks for; the end is exact, so that reading behind it can be seen by sanitizers.
  alignas(128) static thread_local uint8_t room[4096];
  if (entry.kernarg_bytes > static_cast<int32_t>(sizeof(room))) return program.kernel + " has too many arguments";
  std::memset(room, 0, static_cast<size_t>(entry.kernarg_bytes));
  for (size_t i = 0; i < program.argument_offsets.size(); ++i) {
    std::memcpy(room + program.argument_offsets[i], arguments[i], static_cast<size_t>(program.argument_sizes[i]));
  }
  for (int dim = 0; dim < 3; ++dim) {
    const auto size = static_cast<uint16_t>(block[dim]);
    if (entry.hidden_at[dim] >= 0) std::memcpy(room + entry.hidden_at[dim], &grid[dim], 4);
    if (entry.hidden_at[3 + dim] >= 0) std::memcpy(room + entry.hidden_at[3 + dim], &size, 2);
  }
  Launch what{&program,
              {grid[0], grid[1], grid[2]},
              {block[0], block[1], block[2]},
              shared,
              room,
              kernel.costs.empty() ? nullptr : kernel.costs.data()};
  std::vector<uint64_t> counts(program.rows.size());
  Observation seen;
  std::string problem = launch(what, settings().schedule, settings().threads, counts.data(), seen);
  std::lock_guard lock(kernel.mutex);
  if (settings().schedule.counting) kernel.seen.add(std::move(seen));
  for (size_t row = 0; row < counts.size(); ++row) kernel.counts[row] += counts[row];
  return problem;
}

namespace {

thread_local std::string problem;

template <int L>
const char* run_alone_with(const Program& program, uint32_t* v, uint32_t* s, int32_t* scc, uint8_t* shared,
                           uint32_t shared_bytes) {
  auto wave = std::make_unique_for_overwrite<Wave<L>>();
  Workgroup group;
  group.shared.assign(shared, shared + shared_bytes);
  group.begin(1);
  std::memcpy(wave->v, v, sizeof(wave->v));
  std::memcpy(wave->s, s, sizeof(wave->s));
  wave->scc = *scc != 0;
  wave->program = &program;
  problem = run_alone(*wave, group);
  std::memcpy(v, wave->v, sizeof(wave->v));
  std::memcpy(s, wave->s, sizeof(wave->s));
  *scc = wave->scc;
  std::memcpy(shared, group.shared.data(), shared_bytes);
  return problem.c_str();
}

}  // namespace

extern "C" {

// A line for each handler: its name and its types.
const char* amdgpu_handlers() {
  static const std::string text = [] {
    std::string all;
    for (const Handler& h : handlers()) all += h.name + " " + h.types + "\n";
    return all;
  }();
  return text.c_str();
}

// `lines`: the text of each line, ended by newlines; `offsets` has as many entries as there are lines.
void* amdgpu_kernel(const char* name, const Entry* entry, const Instruction* rows, uint64_t row_count,
                    const uint64_t* constants, uint64_t constant_count, const uint32_t* offsets, const char* lines,
                    uint64_t line_count, const int32_t* argument_offsets, const int32_t* argument_sizes,
                    uint64_t argument_count) {
  auto kernel = std::make_unique<Kernel>();
  Program& p = kernel->program;
  p.kernel = name;
  p.entry = *entry;
  p.rows.assign(rows, rows + row_count);
  p.constants.assign(constants, constants + constant_count);
  p.offsets.assign(offsets, offsets + line_count);
  std::istringstream text(lines);
  for (std::string line; std::getline(text, line);) p.lines.push_back(line);
  p.argument_offsets.assign(argument_offsets, argument_offsets + argument_count);
  p.argument_sizes.assign(argument_sizes, argument_sizes + argument_count);
  kernel->counts.resize(row_count);
  return kernel.release();
}

void amdgpu_kernel_free(void* kernel) { delete static_cast<Kernel*>(kernel); }

// Where the kernel's first instruction lies.
void amdgpu_kernel_base(void* kernel, uint64_t base) { static_cast<Kernel*>(kernel)->program.base = base; }

// Puts another instruction in the place of a row; nothing may be running.
void amdgpu_replace(void* kernel, uint64_t row, const Instruction* with) {
  static_cast<Kernel*>(kernel)->program.rows[row] = *with;
}

// Executed instructions by row since the last call.
void amdgpu_counts(void* kernel, uint64_t* counts) {
  auto& k = *static_cast<Kernel*>(kernel);
  std::lock_guard lock(k.mutex);
  std::memcpy(counts, k.counts.data(), k.counts.size() * sizeof(uint64_t));
  std::fill(k.counts.begin(), k.counts.end(), 0);
}

// How counted launches are timed from here on: a cost for each row; null: not at all.
void amdgpu_costs(void* kernel, const Cost* costs) {
  auto& k = *static_cast<Kernel*>(kernel);
  k.costs.clear();
  if (costs) k.costs.assign(costs, costs + k.program.rows.size());
}

// What counted launches did since the last call. `rows`: RowTraffic by row; `lines`: read and written, each line once;
// `stalls`: by Stalls::For. Returns how many workgroups the latest timed launch had.
uint64_t amdgpu_traffic(void* kernel, RowTraffic* rows, uint64_t* lines, uint64_t* stalls) {
  auto& k = *static_cast<Kernel*>(kernel);
  std::lock_guard lock(k.mutex);
  k.seen.traffic.rows.resize(k.program.rows.size());
  std::copy(k.seen.traffic.rows.begin(), k.seen.traffic.rows.end(), rows);
  lines[0] = k.seen.traffic.read.lines();
  lines[1] = k.seen.traffic.written.lines();
  std::copy(k.seen.stalls.clocks.begin(), k.seen.stalls.clocks.end(), stalls);
  k.seen.traffic = {};
  k.seen.stalls = {};
  return k.seen.clocks.size();
}

// The clocks of each workgroup of the latest timed launch.
void amdgpu_clocks(void* kernel, uint64_t* clocks) {
  auto& k = *static_cast<Kernel*>(kernel);
  std::lock_guard lock(k.mutex);
  std::copy(k.seen.clocks.begin(), k.seen.clocks.end(), clocks);
}

// order: of Schedule. quantum: 0, or instructions after which another wave goes on.
// limit: instructions of one wave after which it is taken for one that never ends.
void amdgpu_settings(int32_t order, uint32_t seed, uint32_t quantum, uint64_t limit, int32_t twins, int32_t counting,
                     int32_t threads) {
  settings() = {{static_cast<Schedule::Order>(order), seed, quantum, limit, twins != 0, counting != 0}, threads};
}

// As the enums of matrix.h and transcendentals.h have them.
void amdgpu_arithmetic(int32_t rounding, int32_t additions) {
  transcendental_rounding = static_cast<Rounding>(rounding);
  addition_order = static_cast<AdditionOrder>(additions);
}

// Empty if all went well. `arguments` points to a pointer for each argument.
const char* amdgpu_launch(void* kernel, const uint32_t* grid, const uint32_t* block, uint32_t shared,
                          const void* const* arguments) {
  problem = launch_with(*static_cast<Kernel*>(kernel), grid, block, shared, arguments);
  return problem.c_str();
}

// Runs the rows on the caller's registers, v[kVectorRegisters + kDecoderRegisters][lanes] and s[128].
const char* amdgpu_run_alone(void* kernel, uint32_t* v, uint32_t* s, int32_t* scc, uint8_t* shared,
                             uint32_t shared_bytes) {
  const Program& program = static_cast<Kernel*>(kernel)->program;
  return program.entry.lanes == 64 ? run_alone_with<64>(program, v, s, scc, shared, shared_bytes)
                                   : run_alone_with<32>(program, v, s, scc, shared, shared_bytes);
}

}  // extern "C"

}  // namespace amdgpu
