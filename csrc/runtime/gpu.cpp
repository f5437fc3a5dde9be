// SPDX-License-Identifier: Apache-2.0
#include "runtime/gpu.h"

#include <exception>

#include "runtime/code_object.h"
#include "runtime/errors.h"

namespace rocmforge {

namespace {

constexpr int kRelaxedCapture = 2;  // the same number in HIP and CUDA

// The device is current while this lives. leave() reports a failure; the destructor, on the way out of another error,
// restores what it can.
class CurrentDevice {
 public:
  explicit CurrentDevice(GpuDriver& driver) : driver_(driver), previous_(driver.enter()) {}
  ~CurrentDevice() {
    if (previous_) static_cast<void>(driver_.leave(*previous_));
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

  void leave() {
    if (const auto previous = std::exchange(previous_, std::nullopt)) {
      driver_.check(driver_.leave(*previous), driver_.leave_name());
    }
  }

 private:
  GpuDriver& driver_;
  std::optional<intptr_t> previous_;
};

// Code may be needed for the first time while another stream, or this one, is being captured: loading it is then only
// allowed to a thread in relaxed mode.
class RelaxedCapture {
 public:
  explicit RelaxedCapture(GpuDriver& driver) : driver_(driver) { driver_.check(exchange(), name()); }
  ~RelaxedCapture() {
    if (!left_) static_cast<void>(exchange());
  }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

  void leave() {
    left_ = true;
    driver_.check(exchange(), name());
  }

 private:
  GpuStatus exchange() { return driver_.api().exchange_capture_mode.call(&mode_); }
  const char* name() const { return driver_.api().exchange_capture_mode.name; }

  GpuDriver& driver_;
  int mode_ = kRelaxedCapture;  // after an exchange: the mode to go back to
  bool left_ = false;
};

class GpuModule : public Module {
 public:
  GpuModule(GpuDriver& driver, const std::string& path) : driver_(driver), code_(path) {
    CurrentDevice current(driver_);
    RelaxedCapture relaxed(driver_);
    driver_.check(driver_.api().load.call(&handle_, code_.image()), driver_.api().load.name, path);
    try {
      relaxed.leave();
      current.leave();
    } catch (...) {
      unload();
      throw;
    }
  }

  ~GpuModule() override {
    // At exit the driver may be gone before us; then there is nothing to unload, and nobody to tell.
    try {
      CurrentDevice current(driver_);
      unload();
    } catch (const std::exception&) {
      handle_ = nullptr;
    }
  }

  Function function(const std::string& kernel) override {
    Function found;
    code_.read_symbol(kernel + "_config", &found.config, sizeof(found.config));
    CurrentDevice current(driver_);
    RelaxedCapture relaxed(driver_);
    driver_.check(driver_.api().function.call(&found.handle, handle_, kernel.c_str()), driver_.api().function.name,
                  kernel);
    driver_.prepare(found.handle, found.config, kernel);
    relaxed.leave();
    current.leave();
    return found;
  }

 private:
  void unload() { static_cast<void>(driver_.api().unload.call(std::exchange(handle_, nullptr))); }

  GpuDriver& driver_;
  CodeObject code_;
  void* handle_ = nullptr;
};

}  // namespace

std::unique_ptr<Module> GpuDriver::load(const std::string& path) { return std::make_unique<GpuModule>(*this, path); }

bool GpuDriver::capturing(void* stream) const {
  int status = 0;  // 0: no capture, in HIP and CUDA
  return api_.is_capturing.call(stream, &status) != 0 || status != 0;  // where that fails the launch says why
}

void GpuDriver::launch(const Function& function, const std::string& kernel, const int32_t grid[3], void* stream,
                       const void* args) {
  CurrentDevice current(*this);
  void* params[] = {const_cast<void*>(args)};
  const char* call = nullptr;
  const GpuStatus status = start(function, grid, stream, params, call);
  if (status != 0) {
    check(status, call,
          kernel + ", grid " + std::to_string(grid[0]) + "x" + std::to_string(grid[1]) + "x" + std::to_string(grid[2]) +
              ", " + std::to_string(function.config.threads) + " threads, " +
              std::to_string(function.config.shared_bytes) + " bytes of shared memory, " + info_.arch);
  }
  current.leave();
}

GpuStatus GpuDriver::start(const Function& function, const int32_t grid[3], void* stream, void** params,
                           const char*& name) {
  name = api_.launch.name;
  return api_.launch.call(function.handle, static_cast<unsigned>(grid[0]), static_cast<unsigned>(grid[1]),
                          static_cast<unsigned>(grid[2]), static_cast<unsigned>(function.config.threads), 1, 1,
                          static_cast<unsigned>(function.config.shared_bytes), stream, params, nullptr);
}

void GpuDriver::check(GpuStatus status, const char* call, const std::string& kernel) const {
  if (status != 0) throw DriverError(call, status, error_text(status), kernel);
}

}  // namespace rocmforge
