// SPDX-License-Identifier: Apache-2.0
// Python's view of the mask, position and cache launches. Tensors come as tuples: rows as (pointer, token stride, head
// stride), a cache as (pointer, block, head and token stride, blocks, block size, slots pointer, slot count).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <tuple>

#include "bindings.h"
#include "launch/cache.h"
#include "launch/mask.h"
#include "launch/position.h"

namespace py = pybind11;

namespace rocmforge {
namespace {

// Reads a tuple of integers without building a container: these calls are on the path of every eager layer.
class Ints {
 public:
  Ints(const py::tuple& tuple, py::ssize_t count) : tuple_(tuple) {
    if (tuple.size() != static_cast<size_t>(count)) throw std::invalid_argument("tuple of the wrong length");
  }
  template <class T = int64_t>
  T next() {
    const long long value = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple_.ptr(), at_++));
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return static_cast<T>(value);
  }

 private:
  const py::tuple& tuple_;
  py::ssize_t at_ = 0;
};

RowsView rows_view(const py::tuple& tuple) {
  Ints in(tuple, 3);
  return {in.next<uintptr_t>(), in.next(), in.next()};
}

CacheView cache_view(const py::tuple& tuple) {
  Ints in(tuple, 8);
  return {in.next<uintptr_t>(), in.next(), in.next(), in.next(), in.next(), in.next(), in.next<uintptr_t>(), in.next()};
}

// (cos, sin, cos stride, sin stride, float table, positions, axis stride, two sections, mode)
RopeView rope_view(const py::tuple& tuple) {
  Ints in(tuple, 10);
  return {in.next<uintptr_t>(), in.next<uintptr_t>(), in.next(), in.next(), in.next() != 0, in.next<uintptr_t>(),
          in.next(), {in.next(), in.next()}, in.next<PositionMode>()};
}

// (head_size, rotary_dim, interleaved)
HeadShape head_shape(const py::tuple& tuple) {
  Ints in(tuple, 3);
  return {in.next(), in.next(), in.next() != 0};
}

}  // namespace

void bind_causal_mask(py::module_& module) {
  module.def("causal_mask", [](Device& device, Stream stream, int element, uintptr_t scores, const py::tuple& matrix,
                               std::vector<int64_t> batch_size, std::vector<int64_t> batch_stride, int64_t cache_len) {
    Ints in(matrix, 4);
    const CausalMaskCall call{static_cast<Element>(element), scores, in.next(), in.next(), in.next(), in.next(),
                              std::move(batch_size), std::move(batch_stride), cache_len};
    ReleaseGil released(device);
    launch_causal_mask(device, stream, call);
  });
}

void bind_kv_write(py::module_& module) {
  module.def("kv_write", [](Device& device, Stream stream, int element, int64_t tokens, int64_t heads,
                            int64_t head_size, const py::tuple& key, const py::tuple& value, const py::tuple& cache) {
    const KvWriteCall call{static_cast<Element>(element), tokens, heads, head_size, rows_view(key), rows_view(value),
                           cache_view(cache)};
    ReleaseGil released(device);
    launch_kv_write(device, stream, call);
  });
}

void bind_rotary(py::module_& module) {
  module.def("rotary", [](Device& device, Stream stream, int element, int64_t tokens, int64_t query_heads,
                          int64_t key_heads, const py::tuple& shape, const py::tuple& table, const py::tuple& query,
                          const py::tuple& query_out, const py::tuple& key, const py::tuple& key_out,
                          const py::tuple& batch) {
    Ints in(batch, 3);  // (tokens of a sequence, batch stride of query, of query_out)
    const RotaryCall call{static_cast<Element>(element), tokens, query_heads, key_heads, head_shape(shape),
                          rope_view(table), rows_view(query), rows_view(query_out), rows_view(key), rows_view(key_out),
                          in.next(), in.next(), in.next()};
    ReleaseGil released(device);
    launch_rotary(device, stream, call);
  });
}

void bind_rotary_kv_write(py::module_& module) {
  module.def("rotary_kv_write", [](Device& device, Stream stream, int element, int64_t tokens, int64_t query_heads,
                                   int64_t kv_heads, const py::tuple& shape, const py::tuple& table,
                                   const py::tuple& query, const py::tuple& query_out, const py::tuple& key,
                                   const py::tuple& value, const py::tuple& cache, uintptr_t query_weight,
                                   uintptr_t key_weight, double epsilon) {
    const RotaryKvWriteCall call{static_cast<Element>(element), tokens, query_heads, kv_heads, head_shape(shape),
                                 rope_view(table), rows_view(query), rows_view(query_out), rows_view(key),
                                 rows_view(value), cache_view(cache), query_weight, key_weight, epsilon};
    ReleaseGil released(device);
    launch_rotary_kv_write(device, stream, call);
  });
}

}  // namespace rocmforge
