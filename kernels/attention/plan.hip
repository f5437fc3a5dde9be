// SPDX-License-Identifier: Apache-2.0
// The kernel that plans, for all problems.
#include "schedule/plan.h"

RF_KERNEL(attention_plan, rocmforge::MakePlan)
