# SPDX-License-Identifier: Apache-2.0
"""The instantiation table: every unit that is compiled, for which types and head sizes, and the kernels it exports.

A unit is one source with one set of defines. The source pastes the defines into its kernels' names, so a row here and
the names in it must agree with the RF_KERNEL lines of the source (tests check that the built files export them).
"""

from __future__ import annotations

from rocmforge_build.variants import Unit

TYPES = ("bf16", "f16", "float")
HEAD_SIZES = (64, 80, 96, 128, 192, 256)


def per_type(concept: str, kernels: tuple[str, ...], types: tuple[str, ...] = TYPES) -> list[Unit]:
    """One unit per element type: KERNEL_TYPE from kernels/CONCEPT/CONCEPT.hip."""
    return [
        Unit(
            name=f"{concept}_{kind}",
            source=f"kernels/{concept}/{concept}.hip",
            defines={"RF_TYPE": kind},
            kernels=tuple(f"{kernel}_{kind}" for kernel in kernels),
        )
        for kind in types
    ]


def widths(*kernels: str, bytes_wide: tuple[int, ...] = (16, 8, 1)) -> tuple[str, ...]:
    """KERNEL_vN for each width of memory access."""
    return tuple(f"{kernel}_v{width}" for kernel in kernels for width in bytes_wide)


UNITS: list[Unit] = [
    *per_type("mask", widths("causal_mask", bytes_wide=(16, 1))),
    *per_type("cache", widths("kv_write")),
    *per_type("position", widths("rotary", "rotary_kv_write", "norm_rotary_kv_write")),
]
