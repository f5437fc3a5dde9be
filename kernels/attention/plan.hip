// SPDX-License-Identifier: Apache-2.0
#include "schedule/plan.h"

RF_KERNEL(attention_plan, rocmforge::MakePlan)
