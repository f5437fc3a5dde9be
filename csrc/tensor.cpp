// SPDX-License-Identifier: Apache-2.0
// Through DLPack's C exchange table (DLPack 1.3, torch 2.11) a tensor is read in 0.05 us; where there is none, or it
// does not take a tensor, that is asked for each attribute, in 1 us. The structs below are the table's binary
// interface, as far as it is used.
#include "tensor.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

namespace py = pybind11;

namespace rocmforge {
namespace {

struct DlTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t dims;
  uint8_t type_code, type_bits;
  uint16_t type_lanes;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

struct DlExchange {
  uint32_t major, minor;
  void* previous;
  void* not_used[3];
  int (*read)(void* object, DlTensor* out);  // dltensor_from_py_object_no_sync: borrows, allocates nothing
};
constexpr uint32_t kDlMajor = 1;
constexpr int kDlCpu = 1, kDlCuda = 2, kDlRocm = 10;

struct Torch {
  py::object tensor, parameter;     // torch.Tensor, torch.nn.Parameter
  std::array<py::object, 4> types;  // bfloat16, float16, float32, int32
  const DlExchange* exchange = nullptr;
};

Torch& torch() {
  static Torch& known = *new Torch;  // never destroyed: Python is gone before static objects are
  return known;
}

TensorType type_of(int code, int bits) {
  constexpr int kDlInt = 0, kDlFloat = 2, kDlBfloat = 4;
  if (code == kDlBfloat && bits == 16) return TensorType::kBf16;
  if (code == kDlFloat && bits == 16) return TensorType::kF16;
  if (code == kDlFloat && bits == 32) return TensorType::kFloat;
  return code == kDlInt && bits == 32 ? TensorType::kInt32 : TensorType::kOther;
}

bool read_exchange(py::handle object, TensorView& view) {
  DlTensor tensor{};
  if (torch().exchange->read(object.ptr(), &tensor) != 0) {
    PyErr_Clear();
    return false;
  }
  if (tensor.dims > TensorView::kMaxDims || tensor.type_lanes != 1 || !tensor.strides) return false;
  switch (tensor.device_type) {
    case kDlCpu: view.device = -1; break;
    case kDlCuda:
    case kDlRocm: view.device = tensor.device_id; break;
    default: return false;
  }
  view.type = type_of(tensor.type_code, tensor.type_bits);
  view.dims = tensor.dims;
  view.data = reinterpret_cast<uintptr_t>(tensor.data) + tensor.byte_offset;
  std::copy_n(tensor.shape, tensor.dims, view.shape);
  std::copy_n(tensor.strides, tensor.dims, view.stride);
  return true;
}

bool read_attributes(py::handle object, TensorView& view) {
  try {
    const py::tuple shape = object.attr("shape"), stride = object.attr("stride")();
    if (shape.size() > TensorView::kMaxDims) return false;
    view.dims = static_cast<int>(shape.size());
    for (size_t i = 0; i < shape.size(); ++i) {
      view.shape[i] = shape[i].cast<int64_t>();
      view.stride[i] = stride[i].cast<int64_t>();
    }
    const py::object type = object.attr("dtype");
    const auto& types = torch().types;
    view.type = static_cast<TensorType>(
        std::find_if(types.begin(), types.end(), [&](const py::object& known) { return known.is(type); }) -
        types.begin());
    view.device = object.attr("get_device")().cast<int>();
    view.data = object.attr("data_ptr")().cast<uintptr_t>();
    return true;
  } catch (const py::error_already_set&) {
    return false;  // the caller's checks say what is wrong with it
  }
}

}  // namespace

bool read_tensor(py::handle object, TensorView& view) {
  // Other subclasses may stand for memory that is elsewhere, or nowhere, as fake tensors do.
  const py::handle type = py::type::handle_of(object);
  if (!type.is(torch().tensor) && !type.is(torch().parameter)) return false;
  if (!(torch().exchange && read_exchange(object, view)) && !read_attributes(object, view)) return false;
  return view.data != 0 || std::find(view.shape, view.shape + view.dims, 0) != view.shape + view.dims;
}

void bind_tensor(py::module_& module) {
  module.def(
      "use_torch",
      [](py::type tensor, py::type parameter, std::array<py::object, 4> types, std::optional<py::capsule> exchange) {
        const bool named = exchange && std::string_view(exchange->name()) == "dlpack_exchange_api";
        const DlExchange* table = named ? exchange->get_pointer<const DlExchange>() : nullptr;
        if (table && (table->major != kDlMajor || !table->read)) table = nullptr;
        torch() = {std::move(tensor), std::move(parameter), std::move(types), table};
        return table != nullptr;
      },
      py::arg("tensor"), py::arg("parameter"), py::arg("types"), py::arg("exchange"),
      "Names torch.Tensor, torch.nn.Parameter, bfloat16, float16, float32, int32 and torch's DLPack exchange table, if "
      "it has one; returns whether the table is used.");
}

}  // namespace rocmforge
