// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

RF_KERNEL(attention_plan, rocmforge::MakePlan)
