// SPDX-License-Identifier: Apache-2.0
// What attention computes, apart from the batch: rocmforge_plugin/problem.py is Python's side of it,
// kernels/attention/problem/ the kernels'. How keys lie and what becomes of scores is in the kernels, and so in how
// their names end, which Python spells for the build and for here. No other file here names an attention kernel.
#pragma once

#include <cstdint>
#include <iterator>
#include <string>

#include "launch/element.h"

namespace rocmforge {

inline constexpr int64_t kBlockMultiple = 16;  // of the keys of a cache block

// The ops, which differ in the tensors that hold keys: a key format belongs to one of them.
enum class AttentionOp : int { kPaged, kLatent, kVarlen };
inline constexpr const char* kAttentionOpNames[] = {"paged_attention", "latent_attention", "varlen_attention"};
inline constexpr int kAttentionOps = static_cast<int>(std::size(kAttentionOpNames));

struct Problem {
  AttentionOp op;
  Element element;
  int key_dims, value_dims;  // elements of a head of queries and keys, and of values and results
  int kv_heads, group;       // group: query heads per KV head
  int window;                // keys a query sees on either side that it sees, its own included; 0: all
  bool listed, clamped;      // whether what each token sees is listed by the plan; whether a window ends ranges
  bool capped, sloped;       // whether scores have a soft cap, and slopes
  int partial_dims;          // of partial results: the kernels' value dims, of which heads may have fewer
  std::string suffix;          // of the kernels that know the whole problem, such as bf16_d128
  std::string combine_suffix;  // of the kernel that joins partial results, whatever made them

  int heads() const { return kv_heads * group; }
};

enum class AttentionKernel : int { kPlan, kDecode1, kDecode2, kDecode4, kPrefill, kCombine };

// Such as attention_prefill_bf16_d128.
std::string kernel_name(const Problem& problem, AttentionKernel kernel);

}  // namespace rocmforge
