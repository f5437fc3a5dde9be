// SPDX-License-Identifier: Apache-2.0
#include "launch/problem.h"

namespace rocmforge {

std::string kernel_name(const Problem& problem, AttentionKernel kernel) {
  switch (kernel) {
    case AttentionKernel::kPlan: return problem.listed ? "attention_plan_listed" : "attention_plan";
    case AttentionKernel::kDecode1: return "attention_decode1_" + problem.suffix;
    case AttentionKernel::kDecode2: return "attention_decode2_" + problem.suffix;
    case AttentionKernel::kDecode4: return "attention_decode4_" + problem.suffix;
    case AttentionKernel::kPrefill: return "attention_prefill_" + problem.suffix;
    case AttentionKernel::kCombine: return "attention_combine_" + problem.combine_suffix;
  }
  return {};
}

}  // namespace rocmforge
