// SPDX-License-Identifier: Apache-2.0
// Libraries of the system, found and opened while the program runs: none has to be there where nothing needs it.
#pragma once

#include <span>
#include <string>

namespace rocmforge {

// A shared library, open as long as this object lives.
class Library {
 public:
  explicit Library(const std::string& path);  // throws DeviceError with dlerror's text
  ~Library();
  Library(Library&& other) noexcept;
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  // Path of a library in this process whose file name starts with `stem`; empty if there is none.
  static std::string find_loaded(const std::string& stem);

  // The copy that is already in the process, whatever folder it came from, else the first of `names` that can be
  // opened: two copies of a GPU runtime in one process do not know each other's streams.
  static Library open_any(const std::string& stem, std::span<const char* const> names, const std::string& advice);

  void* find(const char* symbol) const;  // null if it is not there
  void* require(const char* symbol) const;

  template <class Fn>
  void bind(Fn*& out, const char* symbol) const {
    out = reinterpret_cast<Fn*>(require(symbol));
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  void* handle_ = nullptr;
};

}  // namespace rocmforge
