// SPDX-License-Identifier: Apache-2.0
// The kernels that plan: for all problems whose masks are windows, and for those whose masks are listed.
#include "schedule/plan.h"

RF_KERNEL(attention_plan, rocmforge::MakePlan<false>)
RF_KERNEL(attention_plan_listed, rocmforge::MakePlan<true>)
