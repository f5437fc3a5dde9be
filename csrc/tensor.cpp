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

#include "bindings.h"

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
  std::array<py::object, 5> types;  // bfloat16, float16, float32, int32, int64
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
  if (code == kDlInt && bits == 32) return TensorType::kInt32;
  return code == kDlInt && bits == 64 ? TensorType::kInt64 : TensorType::kOther;
}

}  // namespace

TensorView::TensorView(py::handle object) {
  given = !object.is_none();
  readable = given && read(object);
}

bool TensorView::read(py::handle object) {
  // Other subclasses may stand for memory that is elsewhere, or nowhere, as fake tensors do.
  const py::handle kind = py::type::handle_of(object);
  if (!kind.is(torch().tensor) && !kind.is(torch().parameter)) return false;
  if (!(torch().exchange && read_exchange(object)) && !read_attributes(object)) return false;
  return data != 0 || std::find(shape, shape + dims, 0) != shape + dims;
}

bool TensorView::read_exchange(py::handle object) {
  DlTensor tensor{};
  if (torch().exchange->read(object.ptr(), &tensor) != 0) {
    PyErr_Clear();
    return false;
  }
  if (tensor.type_lanes != 1 || !tensor.strides) return false;
  switch (tensor.device_type) {
    case kDlCpu: device = -1; break;
    case kDlCuda:
    case kDlRocm: device = tensor.device_id; break;
    default: return false;
  }
  type = type_of(tensor.type_code, tensor.type_bits);
  dims = tensor.dims;
  data = reinterpret_cast<uintptr_t>(tensor.data) + tensor.byte_offset;
  shape = tensor.shape;
  stride = tensor.strides;
  return true;
}

bool TensorView::read_attributes(py::handle object) {
  try {
    if (!object.attr("is_cpu").cast<bool>() && !object.attr("is_cuda").cast<bool>()) return false;
    device = object.attr("get_device")().cast<int>();
    copied_ = object.attr("shape").cast<std::vector<int64_t>>();
    dims = static_cast<int>(copied_.size());
    const auto strides = object.attr("stride")().cast<std::vector<int64_t>>();
    copied_.insert(copied_.end(), strides.begin(), strides.end());
    shape = copied_.data();
    stride = shape + dims;
    const py::object kind = object.attr("dtype");
    const auto& types = torch().types;
    type = static_cast<TensorType>(
        std::find_if(types.begin(), types.end(), [&](const py::object& known) { return known.is(kind); }) -
        types.begin());
    data = object.attr("data_ptr")().cast<uintptr_t>();
    return true;
  } catch (const py::error_already_set&) {
    return false;  // sparse, meta and the like: Python's side says which
  }
}

void bind_tensor(py::module_& module) {
  module.def(
      "use_torch",
      [](py::type tensor, py::type parameter, std::array<py::object, 5> types, std::optional<py::capsule> exchange) {
        const bool named = exchange && std::string_view(exchange->name()) == "dlpack_exchange_api";
        const DlExchange* table = named ? exchange->get_pointer<const DlExchange>() : nullptr;
        if (table && (table->major != kDlMajor || !table->read)) table = nullptr;
        torch() = {std::move(tensor), std::move(parameter), std::move(types), table};
        return table != nullptr;
      },
      py::arg("tensor"), py::arg("parameter"), py::arg("types"), py::arg("exchange"),
      "Names torch.Tensor, torch.nn.Parameter, bfloat16, float16, float32, int32, int64 and torch's DLPack exchange "
      "table, if it has one; returns whether the table is used.");
}

}  // namespace rocmforge
