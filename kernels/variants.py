# SPDX-License-Identifier: Apache-2.0
"""The instantiation table: every unit that is compiled, for which types and problems, and the kernels it exports.

A unit is one source with one set of defines. The source pastes the defines into its kernels' names, so a row here and
the names in it must agree with the RF_ENTRY lines of the source (tests check that the built files export them).
"""

from __future__ import annotations

from rocmforge_build.units import Unit
from rocmforge_plugin.served import ELEMENTS, HEAD_SIZES

TYPES = tuple(ELEMENTS.values())
HALVES = ("bf16", "f16")  # what GPUs' attention takes
EVERYWHERE = ("amd", "nvidia", "cpu")


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


def attention(problem: str, suffix: str, targets: tuple[str, ...], core: str = "", decode: bool = True) -> list[Unit]:
    """Paged attention of one problem, a type of kernels/attention/problem/; `core` names a matrix core other than the
    target's own, and a core of 32 rows has no decode."""
    suffix += f"_{core}" if core else ""
    defines = {"RF_PROBLEM": problem, "RF_SUFFIX": suffix} | ({"RF_CORE": core} if core else {})
    parts = {"prefill": ("prefill",)} | ({"decode": ("decode1", "decode2", "decode4")} if decode else {})
    return [
        Unit(
            name=f"attention_{part}_{suffix}",
            source=f"kernels/attention/{part}.hip",
            defines=defines,
            kernels=tuple(f"attention_{kernel}_{suffix}" for kernel in kernels),
            targets=targets,
        )
        for part, kernels in parts.items()
    ]


def combine(kind: str, value_dims: int, targets: tuple[str, ...]) -> Unit:
    """What joins the partial results of all problems with results of this type and this many dims."""
    suffix = f"{kind}_d{value_dims}"
    return Unit(
        name=f"attention_combine_{suffix}",
        source="kernels/attention/combine.hip",
        defines={"RF_TYPE": kind, "RF_DIMS": value_dims, "RF_SUFFIX": suffix},
        kernels=(f"attention_combine_{suffix}",),
        targets=targets,
    )


# (problem, suffix of its kernels' names, element type, value dims)
PROBLEMS = [
    (f"Problem<Joined<{kind},{dims}>,Plain>", f"{kind}_d{dims}", kind, dims) for kind in TYPES for dims in HEAD_SIZES
]

# On the CPU every other core is built too, for the tests of its layout and index arithmetic.
CORES = ("Mfma16x16x32", "WmmaGfx11", "WmmaGfx12", "MmaSm80")
CORE_UNITS = [(core, kind, head) for core in CORES for kind, head in (("f16", 64), ("bf16", 80))]
CORE_UNITS += [("MmaSm90", kind, head) for kind, head in (("f16", 64), ("f16", 80), ("bf16", 256))]
WIDE_CORES = ("Mfma32x32x8", "Mfma32x32x16")  # 32 rows a tile: head sizes in multiples of 32, prefill only


def attention_units() -> list[Unit]:
    """Of all problems, and what joins their partial results."""
    units = [Unit(name="attention_plan", source="kernels/attention/plan.hip", kernels=("attention_plan",))]
    results: dict[tuple[str, int], None] = {}
    for problem, suffix, kind, value_dims in PROBLEMS:
        units += attention(problem, suffix, EVERYWHERE if kind in HALVES else ("cpu",))
        results[kind, value_dims] = None
    units += [combine(*result, EVERYWHERE if result[0] in HALVES else ("cpu",)) for result in results]
    cores = [*((*row, True) for row in CORE_UNITS),
             *((core, kind, 64, False) for core in WIDE_CORES for kind in HALVES)]
    for core, kind, head, decode in cores:
        problem = f"Problem<Joined<{kind},{head}>,Plain>"
        units += attention(problem, f"{kind}_d{head}", ("cpu",), core, decode)
    return units


UNITS: list[Unit] = [
    *per_type("mask", widths("causal_mask", bytes_wide=(16, 1))),
    *per_type("cache", widths("kv_write")),
    *per_type("position", widths("rotary", "mrope", "rotary_kv_write", "mrope_kv_write", "norm_rotary_kv_write",
                                "norm_mrope_kv_write")),
    *attention_units(),
]
