// SPDX-License-Identifier: Apache-2.0
#include "traffic.h"

#include <algorithm>
#include <bit>

#include "registry.h"

namespace amdgpu {

namespace {

constexpr uint32_t kGroupBytes = 128, kWordBytes = 4, kMostBanks = 64;

uint8_t bytes_of(const std::string& name) {
  const auto has = [&](const char* what) { return name.find(what) != std::string::npos; };
  if (const size_t at = name.find("dwordx"); at != std::string::npos) {
    return static_cast<uint8_t>(4 * std::stoi(name.substr(at + 6)));
  }
  if (has("dword")) return 4;
  if (has("byte")) return 1;
  if (has("short")) return 2;
  for (const char* type : {"_b", "_u", "_i"}) {
    for (const int bits : {128, 96, 64, 32, 16, 8}) {
      if (has((type + std::to_string(bits)).c_str())) return static_cast<uint8_t>(bits / 8);
    }
  }
  return has("64") || has("_x2") ? 8 : 4;
}

// Lane number `at` in the order in which groups of `size` lanes are made. AMD's documents of CDNA say which lanes a
// group of 16-byte loads has: not eight in a row, but of each 32 lanes 0-3 and 20-23, 4-7 and 16-19, 8-11 and 28-31,
// 12-15 and 24-27.
int lane_at(int at, bool crossed) {
  if (!crossed) return at;
  static constexpr int kFirst[4][2] = {{0, 20}, {4, 16}, {8, 28}, {12, 24}};
  return at / 32 * 32 + kFirst[at / 8 % 4][at / 4 % 2] + at % 4;
}

}  // namespace

Touch access_of(const std::string& name) {
  const auto starts = [&](const char* with) { return name.starts_with(with); };
  const auto has = [&](const char* what) { return name.find(what) != std::string::npos; };
  Touch a;
  if (starts("ds_")) {
    if (has("permute") || has("swizzle")) {
      a.space = Touch::kPermute;
      return a;
    }
    a.space = Touch::kShared;
  } else if (starts("s_load_") || starts("s_buffer_load_")) {
    a.space = Touch::kScalar;
  } else if (starts("global_load_") || starts("global_store_") || starts("global_atomic_")) {
    a.space = Touch::kGlobal;
  } else if (starts("buffer_load_") || starts("buffer_store_") || starts("buffer_atomic_")) {
    a.space = Touch::kBuffer;
  } else {
    return a;
  }
  a.store = has("_store") || has("_write") || has("_atomic");
  a.to_shared = has("_lds");
  a.bytes = bytes_of(name);
  if (has("_read2") || has("_write2")) a.scale = static_cast<uint16_t>(a.bytes * (has("st64") ? 64 : 1));
  return a;
}

void Footprint::add(const Footprint& other) {
  for (const auto& [page, lines] : other.pages_) pages_[page] |= lines;
}

uint64_t Footprint::lines() const {
  uint64_t total = 0;
  for (const auto& [page, lines] : pages_) total += static_cast<uint64_t>(std::popcount(lines));
  return total;
}

void Traffic::add(const Traffic& other) {
  rows.resize(std::max(rows.size(), other.rows.size()));
  for (size_t r = 0; r < other.rows.size(); ++r) {
    rows[r].shared_clocks += other.rows[r].shared_clocks;
    rows[r].least_shared_clocks += other.rows[r].least_shared_clocks;
    rows[r].lines += other.rows[r].lines;
    rows[r].fewest_lines += other.rows[r].fewest_lines;
    rows[r].bytes += other.rows[r].bytes;
  }
  read.add(other.read);
  written.add(other.written);
}

template <int L>
TrafficCounter<L>::TrafficCounter(const Program& program) : entry_(program.entry) {
  traffic.rows.resize(program.rows.size());
  for (const Handler& h : handlers()) access_.push_back(access_of(h.name));
}

template <int L>
uint32_t TrafficCounter<L>::count_shared(const Wave<L>& w, Touch access, uint32_t offset, RowTraffic& row) {
  const int size = static_cast<int>(kGroupBytes / std::clamp(std::bit_ceil(uint32_t{access.bytes}), 4u, 16u));
  const bool crossed = L == 64 && access.bytes == 16 && !access.store;
  const auto banks = static_cast<uint32_t>(entry_.shared_banks);
  uint32_t clocks = 0, least = 0;
  for (int group = 0; group < L; group += size) {
    uint32_t seen[kMostBanks][2 * kGroupBytes / kWordBytes], count[kMostBanks] = {};
    uint32_t words = 0, most = 0;
    for (int at = group; at < group + size; ++at) {
      const int l = lane_at(at, crossed);
      if (!w.active[l]) continue;
      row.bytes += access.bytes;
      const auto first = static_cast<uint32_t>(address_[l]) + offset;
      for (uint32_t word = first / kWordBytes; word <= (first + access.bytes - 1) / kWordBytes; ++word) {
        const uint32_t bank = word % banks;
        uint32_t* const end = seen[bank] + count[bank];
        if (std::find(seen[bank], end, word) != end) continue;
        *end = word;
        ++words;
        most = std::max(most, ++count[bank]);
      }
    }
    clocks += most;
    least += (words * kWordBytes + kGroupBytes - 1) / kGroupBytes;
  }
  row.shared_clocks += clocks;
  row.least_shared_clocks += least;
  return clocks;
}

template <int L>
void TrafficCounter<L>::count_lines(int count, Touch access, RowTraffic& row) {
  if (count == 0) return;
  if (!std::is_sorted(address_, address_ + count)) std::sort(address_, address_ + count);
  const auto line_bytes = static_cast<uint64_t>(entry_.line_bytes);
  Footprint& footprint = access.store ? traffic.written : traffic.read;
  uint64_t covered = 0, distinct = 0, next_line = 0;
  for (int l = 0; l < count; ++l) {
    const uint64_t first = address_[l], end = first + access.bytes;
    if (end > covered) distinct += end - std::max(first, covered);
    covered = std::max(covered, end);
    for (uint64_t line = std::max(first / line_bytes, next_line); line <= (end - 1) / line_bytes; ++line) {
      footprint.add(line);
      ++row.lines;
      next_line = line + 1;
    }
  }
  row.fewest_lines += (distinct + line_bytes - 1) / line_bytes;
  row.bytes += static_cast<uint64_t>(count) * access.bytes;
}

template <int L>
uint32_t TrafficCounter<L>::count(const Wave<L>& w, const Instruction& i, Touch access, RowTraffic& row) {
  const auto is_register = [](const Operand& o) { return o.kind == Kind::kVector; };
  const Operand& address = i.operand[i.results];  // but for buffers
  int count = 0;
  switch (access.space) {
    case Touch::kNone: return 0;
    case Touch::kPermute: {
      const uint32_t clocks = L / 32;
      row.shared_clocks += clocks;
      row.least_shared_clocks += clocks;
      return clocks;
    }
    case Touch::kShared: {
      for (int l = 0; l < L; ++l) address_[l] = w.v[address.reg][l];
      if (access.scale == 0) return count_shared(w, access, static_cast<uint32_t>(i.offset), row);
      return count_shared(w, access, static_cast<uint32_t>(i.offset * access.scale), row) +
             count_shared(w, access, static_cast<uint32_t>(i.offset1 * access.scale), row);
    }
    case Touch::kGlobal: {
      const Operand& scalar = i.operand[i.operands - 1];
      const bool with_scalar = scalar.kind == Kind::kScalar;
      const uint64_t base = (with_scalar ? w.scalar(scalar) : 0) + static_cast<uint64_t>(int64_t{i.offset});
      for (int l = 0; l < L; ++l) {
        if (!w.active[l]) continue;
        uint64_t at = is_register(address) ? w.v[address.reg][l] : 0;
        if (!with_scalar) at |= uint64_t{w.v[address.reg + 1][l]} << 32;
        address_[count++] = base + at;
      }
      break;
    }
    case Touch::kBuffer: {
      // A descriptor has a base of 48 bits and a size; lanes beyond it access nothing.
      const int at = access.to_shared ? 0 : 1;  // behind the data, if there is any
      const Operand &lane = i.operand[at], &more = i.operand[at + 2];
      const uint32_t* descriptor = &w.s[i.operand[at + 1].reg];
      const uint64_t base = (descriptor[0] | uint64_t{descriptor[1]} << 32) & 0xffffffffffff;
      const uint64_t fixed = static_cast<uint64_t>(i.offset) + (more.kind == Kind::kNone ? 0 : w.scalar(more));
      for (int l = 0; l < L; ++l) {
        const uint64_t offset = fixed + (is_register(lane) ? w.v[lane.reg][l] : 0);
        if (w.active[l] && offset < descriptor[2]) address_[count++] = base + offset;
      }
      break;
    }
    case Touch::kScalar: {
      const uint64_t offset = i.operands > 2 && i.operand[2].kind != Kind::kNone ? w.scalar(i.operand[2]) : 0;
      Operand base = i.operand[1];
      base.count = 2;  // of a descriptor: its first half
      address_[count++] = (w.scalar(base) & 0xffffffffffff) + static_cast<uint64_t>(int64_t{i.offset}) + offset;
      break;
    }
  }
  count_lines(count, access, row);
  if (!access.to_shared) return 0;
  const auto clocks = static_cast<uint32_t>((count * access.bytes + kGroupBytes - 1) / kGroupBytes);
  row.shared_clocks += clocks;
  row.least_shared_clocks += clocks;
  return clocks;
}

template class TrafficCounter<32>;
template class TrafficCounter<64>;

}  // namespace amdgpu
