// SPDX-License-Identifier: Apache-2.0
// What several ops demand of tensors of heads, and how launches take them. A table here is for a struct `Call` of an
// op's tensors, which says what the first of them has (type(), device(), tokens(), head_size()), and for one member of
// it. A tensor that is optional and not given meets every condition.
#pragma once

#include <algorithm>
#include <array>

#include "conditions.h"
#include "launch/cache.h"
#include "launch/op_kernels.h"
#include "tensor.h"

namespace rocmforge {

// Rows are the heads of a tensor [tokens, heads, head_size] or [tokens, heads * head_size].
inline bool is_rows(const TensorView& view, int64_t head_size) {
  return view.dims == 3 ? view.shape[2] == head_size : view.dims == 2 && view.shape[1] % head_size == 0;
}
inline int64_t heads_of(const TensorView& view, int64_t head_size) {
  return view.dims == 3 ? view.shape[1] : view.shape[1] / head_size;
}
// A stride that no element depends on counts as 0, so that it does not narrow the memory accesses.
inline RowsView rows_of(const TensorView& view, int64_t head_size) {
  if (!view.given) return {};
  const int64_t head_stride = view.dims == 3 ? view.stride[1] : head_size;
  return {view.data, view.shape[0] > 1 ? view.stride[0] : 0, heads_of(view, head_size) > 1 ? head_stride : 0};
}
inline bool is_contiguous(const TensorView& view, int64_t head_size) {
  return view.last_stride() == 1 || head_size == 1 || view.shape[0] == 0 || heads_of(view, head_size) == 0;
}

// One row a token is a tensor [tokens, row] or, of one head, [tokens, 1, row]; the row may be of no elements.
inline bool is_row(const TensorView& view) { return view.dims == 2 || (view.dims == 3 && view.shape[1] == 1); }
inline bool has_contiguous_row(const TensorView& view) {
  return view.last_stride() == 1 || view.last_shape() < 2 || view.shape[0] == 0;
}
inline RowsView row_of(const TensorView& view) {
  if (!view.given || view.last_shape() == 0) return {};
  return {view.data, view.shape[0] > 1 ? view.stride[0] : 0, 0};
}

template <class Call, TensorView Call::* kView, auto kTest>
bool if_given(const Call& call) {
  return !(call.*kView).given || kTest(call.*kView, call);
}

// The first tensor of a call.
template <class Call, TensorView Call::* kView>
constexpr auto leads(const char* argument) {
  return std::to_array<Condition<Call>>({
      {argument, "tensor", [](const Call& c) { return (c.*kView).readable; }},
      {argument, "dtype", [](const Call& c) { return is_element((c.*kView).type); }},
  });
}

template <class Call, TensorView Call::* kView>
constexpr auto follows_if_given(const char* argument) {
  return std::to_array<Condition<Call>>({
      {argument, "tensor", if_given<Call, kView, [](const TensorView& v, const Call&) { return v.readable; }>},
      {argument, "dtype", if_given<Call, kView, [](const TensorView& v, const Call& c) { return v.type == c.type(); }>},
      {argument, "device",
       if_given<Call, kView, [](const TensorView& v, const Call& c) { return v.device == c.device(); }>},
  });
}

template <class Call, TensorView Call::* kView>
constexpr auto follows(const char* argument) {
  auto table = follows_if_given<Call, kView>(argument);
  table[0].holds = [](const Call& c) { return (c.*kView).readable; };
  return table;
}

template <class Call, TensorView Call::* kView>
constexpr auto rows(const char* argument) {
  return std::to_array<Condition<Call>>({
      {argument, "shape",
       if_given<Call, kView, [](const TensorView& v, const Call& c) { return is_rows(v, c.head_size()); }>},
      {argument, "contiguous",
       if_given<Call, kView, [](const TensorView& v, const Call& c) { return is_contiguous(v, c.head_size()); }>},
  });
}

// Rows of the first tensor's tokens.
template <class Call, TensorView Call::* kView>
constexpr auto rows_alike(const char* argument) {
  return conditions<Call>(
      rows<Call, kView>(argument),
      std::to_array<Condition<Call>>({
          {argument, "tokens",
           if_given<Call, kView, [](const TensorView& v, const Call& c) { return v.shape[0] == c.tokens(); }>},
      }));
}

// Pages of keys, each with its value behind it, for a call that says kv_heads().
template <class Call>
bool has_joined_pages(const Call& c) {
  return c.kv_cache.dims == 4 && c.kv_cache.shape[1] == c.kv_heads() && c.kv_cache.shape[3] == 2 * c.head_size();
}

// Pages of latents, each with the rotated part of its key behind it, for a call that says latent_dims(), rope_dims().
template <class Call>
bool has_latent_pages(const Call& c) {
  return c.kv_cache.dims == 3 && c.kv_cache.shape[2] == c.latent_dims() + c.rope_dims();
}

// `kv_cache` and `slot_mapping`; that kv_cache could be read comes first.
template <class Call, bool (*kShape)(const Call&) = has_joined_pages<Call>>
constexpr auto pages() {
  return std::to_array<Condition<Call>>({
      {"kv_cache", "dtype", [](const Call& c) { return c.kv_cache.type == c.type(); }},
      {"kv_cache", "device", [](const Call& c) { return c.kv_cache.device == c.device(); }},
      {"kv_cache", "shape", kShape},
      {"kv_cache", "contiguous", [](const Call& c) { return c.kv_cache.last_stride() == 1; }},
      {"kv_cache", "slots",
       [](const Call& c) { return c.kv_cache.shape[0] * c.kv_cache.shape[c.kv_cache.dims - 2] < int64_t{1} << 31; }},
      {"kv_cache", "own", [](const Call& c) { return is_own(c.kv_cache); }},
      {"slot_mapping", "tensor", [](const Call& c) { return c.slot_mapping.readable; }},
      {"slot_mapping", "dtype", [](const Call& c) { return c.slot_mapping.type == TensorType::kInt64; }},
      {"slot_mapping", "device", [](const Call& c) { return c.slot_mapping.device == c.device(); }},
      {"slot_mapping", "shape",
       [](const Call& c) { return c.slot_mapping.dims == 1 && c.slot_mapping.shape[0] <= c.tokens(); }},
      {"slot_mapping", "contiguous",
       [](const Call& c) { return c.slot_mapping.shape[0] < 2 || c.slot_mapping.stride[0] == 1; }},
  });
}

template <class Call>
CacheView pages_of(const Call& call) {
  const TensorView &cache = call.kv_cache, &slots = call.slot_mapping;
  return {.data = cache.data,
          .block_stride = cache.stride[0],
          .head_stride = cache.dims == 4 ? cache.stride[1] : 0,
          .token_stride = cache.stride[cache.dims - 2],
          .blocks = cache.shape[0],
          .block_size = std::max<int64_t>(cache.shape[cache.dims - 2], 1),
          .slots = slots.data,
          .slot_count = slots.shape[0]};
}

}  // namespace rocmforge
