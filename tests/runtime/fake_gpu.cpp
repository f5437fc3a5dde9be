// SPDX-License-Identifier: Apache-2.0
// A stand-in for libamdhip64 and libcuda in one: records calls, keeps the state that callers must put back, and fails
// on demand. Driven from Python through the fake_* functions.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace {

constexpr int kDevices = 2;
constexpr int kGlobalCapture = 0;
constexpr int kRelaxedCapture = 2;

struct Fake {
  std::map<std::string, int> calls;
  std::string failing;
  int fail_at = 0;
  int fail_code = 0;
  std::string arch = "gfx942:sramecc+:xnack-";
  int major = 9;
  int minor = 0;
  int current = 0;                                 // HIP's current device
  std::vector<void*> contexts;                     // CUDA's context stack
  int retained = 0;                                // CUDA's references to the primary context
  int capture_mode = kGlobalCapture;
  std::set<void*> modules;
  std::set<std::string> functions;                 // names that were asked for
  std::map<void*, std::string> names;              // function handle -> name
  int shared_limit = 0, carveout = 0;
  bool loaded_while_strict = false;                // a module was touched outside relaxed capture mode
  std::string launch;                              // the last one, as text
  std::vector<unsigned char> args;
};

Fake& fake() {
  static Fake state;
  return state;
}

int called(const char* name) {
  const int count = ++fake().calls[name];
  return fake().failing == name && count == fake().fail_at ? fake().fail_code : 0;
}

#define CALL(name) \
  if (const int failure = called(name)) return failure

int load(const char* name, void** module) {
  CALL(name);
  fake().loaded_while_strict |= fake().capture_mode != kRelaxedCapture;
  *module = new int(0);
  fake().modules.insert(*module);
  return 0;
}

int unload(const char* name, void* module) {
  CALL(name);
  if (!fake().modules.erase(module)) return 400;
  delete static_cast<int*>(module);
  return 0;
}

int function(const char* name, void** out, void* module, const char* kernel) {
  CALL(name);
  fake().loaded_while_strict |= fake().capture_mode != kRelaxedCapture;
  if (!fake().modules.contains(module)) return 400;
  static std::map<std::string, int> handles;
  *out = &handles[kernel];
  fake().names[*out] = kernel;
  return 0;
}

int launch(const char* name, void* f, const unsigned (&dims)[7], void* stream, void** params, void** extra,
           const std::string& where) {
  CALL(name);
  char text[256];
  std::snprintf(text, sizeof(text), "%s grid %u %u %u block %u %u %u shared %u stream %zu extra %d on %s",
                fake().names[f].c_str(), dims[0], dims[1], dims[2], dims[3], dims[4], dims[5], dims[6],
                reinterpret_cast<size_t>(stream), extra != nullptr, where.c_str());
  fake().launch = text;
  const auto* bytes = static_cast<const unsigned char*>(params[0]);
  fake().args.assign(bytes, bytes + 16);
  return 0;
}

int is_capturing(const char* name, int* status) {
  CALL(name);
  *status = 0;
  return 0;
}

int exchange(const char* name, int* mode) {
  CALL(name);
  std::swap(*mode, fake().capture_mode);
  return 0;
}

}  // namespace

extern "C" {

void fake_reset() { fake() = Fake{}; }
void fake_fail(const char* call, int at, int code) {
  fake().calls.clear();
  fake().failing = call;
  fake().fail_at = at;
  fake().fail_code = code;
}
void fake_arch(const char* arch) { fake().arch = arch; }
void fake_capability(int major, int minor) {
  fake().major = major;
  fake().minor = minor;
}
void fake_set_current(int device) { fake().current = device; }
int fake_current() { return fake().current; }
int fake_contexts() { return static_cast<int>(fake().contexts.size()); }
int fake_retained() { return fake().retained; }
int fake_calls(const char* call) { return fake().calls[call]; }
int fake_modules() { return static_cast<int>(fake().modules.size()); }
int fake_capture_mode() { return fake().capture_mode; }
int fake_loaded_while_strict() { return fake().loaded_while_strict; }
int fake_shared_limit() { return fake().shared_limit; }
int fake_carveout() { return fake().carveout; }
const char* fake_launch() { return fake().launch.c_str(); }
int fake_arg(int i) { return fake().args[static_cast<size_t>(i)]; }

// HIP

const char* hipGetErrorString(int code) {
  return code == 999 ? nullptr : code == 2 ? "out of memory" : "invalid thing";
}

#ifndef ROCM_5
int hipGetDevicePropertiesR0600(char* properties, int device) {
  CALL("hipGetDevicePropertiesR0600");
  if (device >= kDevices) return 101;
  std::memset(properties, 0, 1472);
  std::strcpy(properties, "AMD Instinct MI300X");
  std::strcpy(properties + 1160, fake().arch.c_str());
  return 0;
}
#endif
int hipDeviceGetAttribute(int* value, int attribute, int) {
  CALL("hipDeviceGetAttribute");
  *value = attribute == 63 ? 304 : -1;
  return 0;
}
int hipGetDevice(int* device) {
  CALL("hipGetDevice");
  *device = fake().current;
  return 0;
}
int hipSetDevice(int device) {
  CALL("hipSetDevice");
  fake().current = device;
  return 0;
}
int hipModuleLoadData(void** module, const void*) { return load("hipModuleLoadData", module); }
int hipModuleUnload(void* module) { return unload("hipModuleUnload", module); }
int hipModuleGetFunction(void** f, void* module, const char* name) {
  return function("hipModuleGetFunction", f, module, name);
}
int hipModuleLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                          unsigned shared, void* stream, void** params, void** extra) {
  return launch("hipModuleLaunchKernel", f, {gx, gy, gz, bx, by, bz, shared}, stream, params, extra,
                std::to_string(fake().current));
}
int hipStreamIsCapturing(void*, int* status) { return is_capturing("hipStreamIsCapturing", status); }
int hipThreadExchangeStreamCaptureMode(int* mode) { return exchange("hipThreadExchangeStreamCaptureMode", mode); }

// CUDA

int cuGetErrorString(int code, const char** text) {
  *text = code == 2 ? "out of memory" : "invalid thing";
  return code == 999;
}
int cuInit(unsigned) { return called("cuInit"); }
int cuDeviceGet(int* device, int ordinal) {
  CALL("cuDeviceGet");
  *device = ordinal;
  return ordinal < kDevices ? 0 : 101;
}
int cuDeviceGetName(char* name, int size, int) {
  CALL("cuDeviceGetName");
  std::snprintf(name, static_cast<size_t>(size), "NVIDIA H200");
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int) {
  CALL("cuDeviceGetAttribute");
  const std::map<int, int> values{{16, 132}, {75, fake().major}, {76, fake().minor}, {81, 164 << 10}, {111, 1 << 10}};
  const auto found = values.find(attribute);
  *value = found == values.end() ? -1 : found->second;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  CALL("cuDevicePrimaryCtxRetain");
  static int contexts[kDevices];
  *context = &contexts[device];
  ++fake().retained;
  return 0;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  CALL("cuDevicePrimaryCtxRelease");
  --fake().retained;
  return 0;
}
int cuCtxGetCurrent(void** context) {
  CALL("cuCtxGetCurrent");
  *context = fake().contexts.empty() ? nullptr : fake().contexts.back();
  return 0;
}
int cuCtxPushCurrent_v2(void* context) {
  CALL("cuCtxPushCurrent");
  fake().contexts.push_back(context);
  return 0;
}
int cuCtxPopCurrent_v2(void** context) {
  CALL("cuCtxPopCurrent");
  *context = fake().contexts.back();
  fake().contexts.pop_back();
  return 0;
}
int cuFuncSetAttribute(void*, int attribute, int value) {
  CALL("cuFuncSetAttribute");
  if (attribute == 8) fake().shared_limit = value;
  if (attribute == 9) fake().carveout = value;
  return 0;
}
int cuModuleLoadData(void** module, const void*) { return load("cuModuleLoadData", module); }
int cuModuleUnload(void* module) { return unload("cuModuleUnload", module); }
int cuModuleGetFunction(void** f, void* module, const char* name) {
  return function("cuModuleGetFunction", f, module, name);
}
int cuLaunchKernel(void* f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** params, void** extra) {
  return launch("cuLaunchKernel", f, {gx, gy, gz, bx, by, bz, shared}, stream, params, extra,
                fake().contexts.empty() ? "nothing" : "context");
}
struct LaunchSettings {
  unsigned grid[3], block[3], shared;
  void* stream;
  struct Attribute {
    int id, unused, value[16];
  }* attributes;
  unsigned count;
};
int cuLaunchKernelEx(const LaunchSettings* s, void* f, void** params, void** extra) {
  if (s->count != 1 || s->attributes[0].id != 6 || s->attributes[0].value[0] != 1) return 1;
  return launch("cuLaunchKernelEx", f,
                {s->grid[0], s->grid[1], s->grid[2], s->block[0], s->block[1], s->block[2], s->shared}, s->stream,
                params, extra, fake().contexts.empty() ? "nothing" : "context");
}
int cuStreamIsCapturing(void*, int* status) { return is_capturing("cuStreamIsCapturing", status); }
int cuThreadExchangeStreamCaptureMode(int* mode) { return exchange("cuThreadExchangeStreamCaptureMode", mode); }

}  // extern "C"
