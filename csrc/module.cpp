// SPDX-License-Identifier: Apache-2.0
// The Python module: devices, counts of launches, threads, targets. The ops are bound in launch/bind_*.cpp.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <utility>

#include "bindings.h"
#include "runtime/arch.h"
#include "runtime/errors.h"
#include "runtime/kernel.h"
#include "runtime/parallel.h"

namespace py = pybind11;

namespace rocmforge {

namespace {

constexpr std::pair<const char*, int32_t LaunchConfig::*> kConfigFields[] = {
    {"abi", &LaunchConfig::abi},
    {"wave", &LaunchConfig::wave},
    {"threads", &LaunchConfig::threads},
    {"shared_bytes", &LaunchConfig::shared_bytes},
    {"rows", &LaunchConfig::rows},
    {"keys", &LaunchConfig::keys},
    {"blocks_per_unit", &LaunchConfig::blocks_per_unit},
    {"prefers_shared", &LaunchConfig::prefers_shared},
    {"rounds", &LaunchConfig::rounds},
    {"row_elements", &LaunchConfig::row_elements},
    {"early", &LaunchConfig::early}};
static_assert(sizeof(LaunchConfig) == std::size(kConfigFields) * sizeof(int32_t));

// Both are RuntimeErrors in Python; DriverError carries what failed as attributes.
void register_errors(py::module_& module) {
  static PyObject* driver_error = py::exception<DriverError>(module, "DriverError", PyExc_RuntimeError).release().ptr();
  py::register_exception<DeviceError>(module, "DeviceError", PyExc_RuntimeError);
  py::register_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (const DriverError& error) {
      py::object instance = py::reinterpret_borrow<py::object>(driver_error)(error.what());
      instance.attr("call") = error.call;
      instance.attr("code") = error.code;
      instance.attr("kernel") = error.kernel;
      PyErr_SetObject(driver_error, instance.ptr());
    }
  });
}

void register_device(py::module_& module) {
  py::class_<OpDevice>(module, "Device", "A device with code for it: opened once, kernels loaded as they are needed.")
      .def(py::init<const std::string&, int, const std::string&, const std::string&>(), py::arg("kind"),
           py::arg("ordinal"), py::arg("kernels_dir"), py::arg("library") = "")
      .def_property_readonly("kind", &Device::kind)
      .def_property_readonly("name", [](const OpDevice& device) { return device.info().name; })
      .def_property_readonly("arch", [](const OpDevice& device) { return device.info().arch; })
      .def_property_readonly("compute_units", [](const OpDevice& device) { return device.info().compute_units; })
      .def_property_readonly("target", &Device::target)
      .def_property_readonly("synchronous", &Device::synchronous)
      .def("kernel_names", &Device::kernel_names)
      .def(
          "kernel_config",
          [](OpDevice& device, const std::string& name) {
            py::dict out;
            for (const auto& [field, value] : kConfigFields) out[field] = device.kernel(name).config().*value;
            return out;
          },
          py::arg("name"), "Loads a kernel, if it is not loaded yet, and returns its launch shape.")
      .def(
          "launch",
          [](OpDevice& device, const std::string& name, const Grid& grid, Stream stream, const std::string& args) {
            if (args.size() > kMaxArgs) throw py::value_error("args is longer than any kernel's arguments");
            alignas(16) char bytes[kMaxArgs] = {};  // a kernel may read its whole argument, whatever came
            std::memcpy(bytes, args.data(), args.size());
            Kernel& kernel = device.kernel(name);
            ReleaseGil released(device);
            kernel.launch_bytes(grid, stream, bytes);
          },
          py::arg("name"), py::arg("grid"), py::arg("stream"), py::arg("args"),
          "Launches any kernel with the bytes of its argument struct: for tests and tools. Nothing is checked.");
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  register_errors(module);
  register_device(module);
  module.attr("interface") = ROCMFORGE_INTERFACE;  // of the kernels that this module can load
  module.def("launches", &launch_counts, "Launches so far, by kernel, over all devices of this process.");
  module.def("reset_launches", &reset_launch_counts);
  module.def("cpu_threads", &cpu_threads, "Threads that a CPU kernel is spread over.");
  module.def("set_cpu_threads", &set_cpu_threads, py::arg("threads"),
             "Sets that number; ROCMFORGE_CPU_THREADS, where it is set, has the last word.");
  module.def("set_share_torch_threads", &set_share_torch_threads, py::arg("share"),
             "Whether CPU kernels run on torch's OpenMP threads (the default) or always on threads of their own.");
  module.def(
      "parse_amd_arch",
      [](const std::string& name) {
        const AmdArch arch = parse_amd_arch(name);
        return py::make_tuple(arch.processor, arch.features);
      },
      "A gcnArchName's processor and features.");
  module.def("amd_targets", &amd_targets, "Targets whose code an AMD processor runs, best first.");
  module.def("cuda_targets", &cuda_targets, "Targets whose code a compute capability runs, best first.");
  bind_tensor(module);
  bind_mask(module);
  bind_cache(module);
  bind_position(module);
  bind_attention(module);
  bind_latent(module);
  bind_varlen(module);
}

}  // namespace rocmforge
