// SPDX-License-Identifier: Apache-2.0
#include "image.h"

#include <elf.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace amdgpu {

namespace {

constexpr uint16_t kMachine = 224;       // EM_AMDGPU
constexpr uint32_t kRelative64 = 13;     // R_AMDGPU_RELATIVE64
constexpr uint64_t kPage = 4096;

template <class T>
T at(const uint8_t* file, size_t size, uint64_t offset) {
  if (offset > size || size - offset < sizeof(T)) throw std::runtime_error("the code object ends early");
  T value;
  std::memcpy(&value, file + offset, sizeof(T));
  return value;
}

}  // namespace

size_t Image::size_of(const uint8_t* file) {
  Elf64_Ehdr header;
  std::memcpy(&header, file, sizeof(header));
  return header.e_shoff + size_t{header.e_shentsize} * header.e_shnum;
}

Image::Image(const uint8_t* file, size_t size) {
  const auto header = at<Elf64_Ehdr>(file, size, 0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_machine != kMachine) {
    throw std::runtime_error("not an AMD code object");
  }
  const auto segment = [&](int n) { return at<Elf64_Phdr>(file, size, header.e_phoff + n * sizeof(Elf64_Phdr)); };
  uint64_t end = 0;
  for (int n = 0; n < header.e_phnum; ++n) {
    const Elf64_Phdr s = segment(n);
    if (s.p_type == PT_LOAD) end = std::max<uint64_t>(end, s.p_vaddr + s.p_memsz);
  }
  bytes_ = (end + kPage - 1) / kPage * kPage;
  memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) throw std::runtime_error("no memory for a code object");
  base_ = reinterpret_cast<uint64_t>(memory_);
  auto* const to = static_cast<uint8_t*>(memory_);
  for (int n = 0; n < header.e_phnum; ++n) {
    const Elf64_Phdr s = segment(n);
    if (s.p_type != PT_LOAD) continue;
    if (s.p_offset > size || size - s.p_offset < s.p_filesz) throw std::runtime_error("the code object ends early");
    std::memcpy(to + s.p_vaddr, file + s.p_offset, s.p_filesz);
  }
  for (int n = 0; n < header.e_shnum; ++n) {
    const auto section = at<Elf64_Shdr>(file, size, header.e_shoff + n * sizeof(Elf64_Shdr));
    if (section.sh_type != SHT_RELA) continue;
    for (uint64_t r = 0; r < section.sh_size / sizeof(Elf64_Rela); ++r) {
      const auto entry = at<Elf64_Rela>(file, size, section.sh_offset + r * sizeof(Elf64_Rela));
      if (ELF64_R_TYPE(entry.r_info) != kRelative64 || entry.r_offset + 8 > bytes_) {
        throw std::runtime_error("a relocation of the code object is not known here");
      }
      const uint64_t value = base_ + static_cast<uint64_t>(entry.r_addend);
      std::memcpy(to + entry.r_offset, &value, sizeof(value));
    }
  }
}

Image::~Image() {
  if (memory_ && memory_ != MAP_FAILED) munmap(memory_, bytes_);
}

}  // namespace amdgpu
