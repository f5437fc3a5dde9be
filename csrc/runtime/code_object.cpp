// SPDX-License-Identifier: Apache-2.0
#include "runtime/code_object.h"

#include <elf.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "runtime/errors.h"

namespace rocmforge {

CodeObject::CodeObject(const std::string& path) : path_(path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw DeviceError(path + " cannot be read: " + std::strerror(errno));
  bytes_.assign(std::istreambuf_iterator<char>(file), {});
  if (bytes_.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes_.data(), ELFMAG, SELFMAG) != 0 ||
      bytes_[EI_CLASS] != ELFCLASS64) {
    fail("it is not a 64-bit ELF file");
  }
}

void CodeObject::fail(const std::string& what) const {
  throw DeviceError(path_ + " is damaged or not a code object: " + what);
}

template <class T>
T CodeObject::at(uint64_t offset) const {
  if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) fail("it ends early");
  T value;
  std::memcpy(&value, bytes_.data() + offset, sizeof(T));
  return value;
}

void CodeObject::read_symbol(std::string_view symbol, void* out, size_t size) const {
  const auto header = at<Elf64_Ehdr>(0);
  const auto section = [&](uint64_t index) { return at<Elf64_Shdr>(header.e_shoff + index * sizeof(Elf64_Shdr)); };
  for (uint64_t s = 0; s < header.e_shnum; ++s) {
    const Elf64_Shdr table = section(s);
    if (table.sh_type != SHT_SYMTAB && table.sh_type != SHT_DYNSYM) continue;
    const Elf64_Shdr names = section(table.sh_link);
    for (uint64_t i = 0; i < table.sh_size / sizeof(Elf64_Sym); ++i) {
      const auto entry = at<Elf64_Sym>(table.sh_offset + i * sizeof(Elf64_Sym));
      if (entry.st_shndx == SHN_UNDEF || entry.st_shndx >= header.e_shnum || entry.st_name >= names.sh_size) continue;
      const uint64_t name = names.sh_offset + entry.st_name;
      if (name > bytes_.size() || bytes_.size() - name <= symbol.size()) continue;
      if (std::memcmp(bytes_.data() + name, symbol.data(), symbol.size()) != 0 || bytes_[name + symbol.size()] != 0) {
        continue;
      }
      if (entry.st_size != size) fail(std::string(symbol) + " has " + std::to_string(entry.st_size) + " bytes");
      const Elf64_Shdr home = section(entry.st_shndx);
      if (home.sh_type == SHT_NOBITS) {  // all zero
        std::memset(out, 0, size);
        return;
      }
      // In NVIDIA's files sections have no address and symbols count from their section; in linked files both do.
      const uint64_t inside = entry.st_value - home.sh_addr;
      if (entry.st_value < home.sh_addr || home.sh_size < size || inside > home.sh_size - size) {
        fail(std::string(symbol) + " lies outside its section");
      }
      const uint64_t offset = home.sh_offset + inside;
      if (offset > bytes_.size() || bytes_.size() - offset < size) fail("it ends early");
      std::memcpy(out, bytes_.data() + offset, size);
      return;
    }
  }
  throw DeviceError(path_ + " has no " + std::string(symbol) + ": it was built from other sources");
}

}  // namespace rocmforge
