# SPDX-License-Identifier: Apache-2.0
"""Names of matrix instructions: handlers have gfx942's spelling, and a suffix where a target's differs from another's.

Only floats of 16 bits keep MI200's own spelling, since it flushes their denormals.
"""

from __future__ import annotations

from .target import Target

_GFX90A = {
    "v_mfma_f32_16x16x4f32": "v_mfma_f32_16x16x4_f32",
    "v_mfma_f32_32x32x2f32": "v_mfma_f32_32x32x2_f32",
    "v_mfma_f32_16x16x1f32": "v_mfma_f32_16x16x1_4b_f32",
    "v_mfma_f32_32x32x1f32": "v_mfma_f32_32x32x1_2b_f32",
    "v_mfma_f32_4x4x1f32": "v_mfma_f32_4x4x1_16b_f32",
    "v_mfma_i32_16x16x16i8": "v_mfma_i32_16x16x16_i8",
    "v_mfma_i32_32x32x8i8": "v_mfma_i32_32x32x8_i8",
    "v_mfma_i32_16x16x4i8": "v_mfma_i32_16x16x4_4b_i8",
    "v_mfma_i32_32x32x4i8": "v_mfma_i32_32x32x4_2b_i8",
    "v_mfma_i32_4x4x4i8": "v_mfma_i32_4x4x4_16b_i8",
}


def handler_name(target: Target, mnemonic: str) -> str:
    """The handler of a matrix instruction; other names come back as they are."""
    if mnemonic.startswith("v_wmma_"):
        return mnemonic + "_gfx12" * (target.generation == 12)
    return _GFX90A.get(mnemonic, mnemonic)
