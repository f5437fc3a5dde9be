// SPDX-License-Identifier: Apache-2.0
// The choices for the target that is compiled, or for the core that -DRF_CORE names on the CPU.
#pragma once

#include "../../matrix/select.h"
#include "cdna.h"
#include "nvidia.h"
#include "rdna.h"
