// SPDX-License-Identifier: Apache-2.0
// What HIP and the CUDA driver have in common, which is all but the names, the contexts and the error texts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "runtime/driver.h"
#include "runtime/library.h"

namespace rocmforge {

using GpuStatus = int;  // hipError_t and CUresult: 0 is success

// Entry points of the same shape in both APIs, with the names that errors show.
struct GpuApi {
  template <class Fn>
  struct Entry {
    const char* name;
    Fn* call = nullptr;
  };
  Entry<GpuStatus(void** module, const void* image)> load;
  Entry<GpuStatus(void* module)> unload;
  Entry<GpuStatus(void** function, void* module, const char* name)> function;
  Entry<GpuStatus(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared,
                  void* stream, void** params, void** extra)>
      launch;
  Entry<GpuStatus(int* mode)> exchange_capture_mode;
  Entry<GpuStatus(void* stream, int* status)> is_capturing;
};

class GpuDriver : public Driver {
 public:
  explicit GpuDriver(Library library) : library_(std::move(library)) {}

  std::unique_ptr<Module> load(const std::string& path) override;
  bool capturing(void* stream) const override;
  void launch(const Function& function, const std::string& kernel, const int32_t grid[3], void* stream,
              const void* args) override;

  void check(GpuStatus status, const char* call, const std::string& kernel = {}) const;

  // Makes this device current for the calling thread, and returns what to restore, if it was not current already.
  virtual std::optional<intptr_t> enter() = 0;
  virtual GpuStatus leave(intptr_t previous) = 0;
  virtual const char* leave_name() const = 0;
  // What a function needs before it can be launched with this configuration.
  virtual void prepare(void* function, const LaunchConfig& config, const std::string& kernel) = 0;

  const GpuApi& api() const { return api_; }
  // Calls the library's launch; `name` becomes the call's.
  virtual GpuStatus start(const Function& function, const int32_t grid[3], void* stream, void** params,
                          const char*& name);

 protected:
  virtual std::string error_text(GpuStatus status) const = 0;

  template <class Entry>
  void bind(Entry& entry, const char* name) {
    entry.name = name;
    library_.bind(entry.call, name);
  }

  Library library_;
  GpuApi api_{};
};

}  // namespace rocmforge
