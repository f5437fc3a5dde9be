// SPDX-License-Identifier: Apache-2.0
// RF_INSTANTIATE(name, Kernel): RF_KERNEL under the name `name_TYPE`, where the unit is compiled with -DRF_TYPE=TYPE.
#pragma once

#define RF_PASTE_(a, b) a##_##b
#define RF_PASTE(a, b) RF_PASTE_(a, b)
#define RF_NAMED_KERNEL(name, ...) RF_KERNEL(name, __VA_ARGS__)
#define RF_INSTANTIATE(name, ...) RF_NAMED_KERNEL(RF_PASTE(name, RF_TYPE), __VA_ARGS__)
