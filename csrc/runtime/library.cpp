// SPDX-License-Identifier: Apache-2.0
#include "runtime/library.h"

#include <dlfcn.h>
#include <link.h>

#include <string_view>
#include <utility>

#include "runtime/errors.h"

namespace rocmforge {

namespace {

struct LoadedSearch {
  std::string_view stem;
  std::string path;
};

int match_loaded(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<LoadedSearch*>(data);
  const std::string_view path = info->dlpi_name ? info->dlpi_name : "";
  const std::string_view file = path.substr(path.rfind('/') + 1);
  if (!file.starts_with(search->stem)) return 0;
  search->path = path;
  return 1;
}

}  // namespace

Library::Library(const std::string& path) : path_(path), handle_(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (!handle_) throw DeviceError(dlerror());
}

Library::~Library() {
  if (handle_) dlclose(handle_);
}

Library::Library(Library&& other) noexcept
    : path_(std::move(other.path_)), handle_(std::exchange(other.handle_, nullptr)) {}

std::string Library::find_loaded(const std::string& stem) {
  LoadedSearch search{stem, {}};
  dl_iterate_phdr(match_loaded, &search);
  return search.path;
}

Library Library::open_any(const std::string& stem, std::span<const char* const> names, const std::string& advice) {
  if (const std::string loaded = find_loaded(stem); !loaded.empty()) return Library(loaded);
  std::string tried;
  for (const char* name : names) {
    try {
      return Library(name);
    } catch (const DeviceError& error) {
      tried += std::string(tried.empty() ? "" : "; ") + error.what();
    }
  }
  throw DeviceError(advice + " (" + tried + ")");
}

void* Library::find(const char* symbol) const { return dlsym(handle_, symbol); }

void* Library::require(const char* symbol) const {
  void* address = find(symbol);
  if (!address) throw DeviceError(path_ + " has no " + symbol + ": it is too old or not the library it should be");
  return address;
}

}  // namespace rocmforge
