# SPDX-License-Identifier: Apache-2.0
"""The instantiation table: every unit that is compiled, for which types and head sizes, and the kernels it exports.

A unit is one source with one set of defines. The source pastes the defines into its kernels' names, so a row here and
the names in it must agree with the RF_KERNEL lines of the source (tests check that the built files export them).
"""

from __future__ import annotations

from rocmforge_build.units import Unit
from rocmforge_plugin.served import ELEMENTS, HEAD_SIZES

TYPES = tuple(ELEMENTS.values())


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


def attention(kind: str, head: int, targets: tuple[str, ...], core: str = "", wide: bool = False) -> Unit:
    """Paged attention of one element type and head size; `core` names a matrix core other than the target's own."""
    suffix = f"d{head}" + (f"_{core}" if core else "")
    kernels = ("prefill", "combine") if wide else ("decode1", "decode2", "decode4", "prefill", "combine")
    return Unit(
        name=f"attention_{kind}_{suffix}",
        source="kernels/attention/attention.hip",
        defines={"RF_TYPE": kind, "RF_HEAD": head, "RF_SUFFIX": suffix}
        | ({"RF_CORE": core} if core else {})
        | ({"RF_WIDE": 1} if wide else {}),
        kernels=tuple(f"attention_{kernel}_{kind}_{suffix}" for kernel in kernels),
        targets=targets,
    )


# On the CPU every other core is built too, for the tests of its layout and index arithmetic.
CORES = ("Mfma16x16x32", "WmmaGfx11", "WmmaGfx12", "MmaSm80")
CORE_UNITS = [(core, kind, head) for core in CORES for kind, head in (("f16", 64), ("bf16", 80))]
CORE_UNITS += [("MmaSm90", kind, head) for kind, head in (("f16", 64), ("f16", 80), ("bf16", 256))]
WIDE_CORES = ("Mfma32x32x8", "Mfma32x32x16")  # 32 rows a tile: head sizes in multiples of 32, prefill only

UNITS: list[Unit] = [
    *per_type("mask", widths("causal_mask", bytes_wide=(16, 1))),
    *per_type("cache", widths("kv_write")),
    *per_type("position", widths("rotary", "mrope", "rotary_kv_write", "mrope_kv_write", "norm_rotary_kv_write",
                                "norm_mrope_kv_write")),
    Unit(name="attention_plan", source="kernels/attention/plan.hip", kernels=("attention_plan",)),
    *(attention(kind, head, ("amd", "nvidia", "cpu")) for kind in ("bf16", "f16") for head in HEAD_SIZES),
    *(attention("float", head, ("cpu",)) for head in HEAD_SIZES),
    *(attention(kind, head, ("cpu",), core) for core, kind, head in CORE_UNITS),
    *(attention(kind, 64, ("cpu",), core, wide=True) for core in WIDE_CORES for kind in ("f16", "bf16")),
]
