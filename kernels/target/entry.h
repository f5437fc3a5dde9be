// SPDX-License-Identifier: Apache-2.0
// RF_ENTRY(name, suffix, Kernel): RF_KERNEL under the name `name_suffix`, both of which may be macros.
#pragma once

#include "device.h"

#define RF_JOINED_(name, suffix) name##_##suffix
#define RF_JOINED(name, suffix) RF_JOINED_(name, suffix)
#define RF_ENTRY_(name, ...) RF_KERNEL(name, __VA_ARGS__)
#define RF_ENTRY(name, suffix, ...) RF_ENTRY_(RF_JOINED(name, suffix), __VA_ARGS__)
