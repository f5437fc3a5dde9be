// SPDX-License-Identifier: Apache-2.0
// The matrix core of the target being compiled. On the CPU, -DRF_CORE=... names another than the default.
#pragma once

#include "dot_gfx11.h"
#include "mfma_16x16x16.h"
#include "mfma_16x16x32.h"
#include "mfma_32x32x16.h"
#include "mfma_32x32x8.h"
#include "mma_sm80.h"
#include "mma_sm90.h"
#include "wmma_gfx11.h"
#include "wmma_gfx12.h"

#if !defined(RF_CORE)
#if defined(__gfx950__)
#define RF_CORE Mfma16x16x32
#elif defined(__gfx90a__) || defined(__gfx942__) || defined(__gfx9_4_generic__) || defined(RF_TARGET_CPU)
#define RF_CORE Mfma16x16x16
#elif defined(__GFX11__)
#define RF_CORE WmmaGfx11
// By name: gfx1250 and gfx1251 define __GFX12__ too, and have other matrix instructions.
#elif defined(__gfx1200__) || defined(__gfx1201__) || defined(__gfx12_generic__)
#define RF_CORE WmmaGfx12
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define RF_CORE MmaSm90
#elif defined(__CUDACC__)
#define RF_CORE MmaSm80
#else
#error "no matrix core is described for this architecture"
#endif
#endif
