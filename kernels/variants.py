# SPDX-License-Identifier: Apache-2.0
"""The instantiation table: every unit that is compiled, for which types and problems, and the kernels it exports.

A unit is one source with one set of defines. The source pastes the defines into its kernels' names, so a row here and
the names in it must agree with the RF_ENTRY lines of the source (tests check that the built files export them).
"""

from __future__ import annotations

from dataclasses import replace

from rocmforge_build.units import Unit
from rocmforge_plugin.problem import combine_suffix, kernel_suffix
from rocmforge_plugin.served import ELEMENTS, LISTED_PROBLEMS, PREFILL_ONLY, PROBLEMS

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


def _type(name: str) -> str:
    """The C++ type of a format or a score function."""
    return name.title().replace("_", "")


def attention(
    element: str,
    format: str,
    score: str,
    key_dims: int,
    value_dims: int,
    targets: tuple[str, ...],
    core: str = "",
    decode: bool = True,
    listed: bool = False,
) -> list[Unit]:
    """Attention of one problem; `core` names a matrix core other than the target's own, and a core of 32 rows has
    no decode.
    """
    mask = ",Listed" if listed else ""
    problem = f"Problem<{_type(format)}<{element},{key_dims},{value_dims}>,{_type(score)}{mask}>"
    suffix = kernel_suffix(element, format, score, key_dims, value_dims, listed, core)
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


def apart_on_nvidia(unit: Unit, core: str) -> list[Unit]:
    """The unit for all targets but NVIDIA's, and one with another core for these."""
    others = tuple(target for target in unit.targets if target != "nvidia")
    found = [replace(unit, targets=others)]
    if others != unit.targets:
        defines = {**unit.defines, "RF_CORE": core}
        found.append(replace(unit, name=f"{unit.name}_{core}", defines=defines, targets=("nvidia",)))
    return found


def combine(element: str, value_dims: int, targets: tuple[str, ...]) -> Unit:
    """What joins the partial results of all problems with results of this type and this many dims."""
    suffix = combine_suffix(element, value_dims)
    return Unit(
        name=f"attention_combine_{suffix}",
        source="kernels/attention/combine.hip",
        defines={"RF_TYPE": element, "RF_DIMS": value_dims, "RF_SUFFIX": suffix},
        kernels=(f"attention_combine_{suffix}",),
        targets=targets,
    )


# On the CPU every other core is built too, for the tests of its layout and index arithmetic.
CORES = ("Mfma16x16x32", "WmmaGfx11", "WmmaGfx12", "MmaSm80")
CORE_UNITS = [(core, element, size) for core in CORES for element, size in (("f16", 64), ("bf16", 80))]
CORE_UNITS += [("MmaSm90", element, size) for element, size in (("f16", 64), ("f16", 80), ("bf16", 256))]
# Of the split format: one for each feed, and for cores that differ in how they hold keys.
SPLIT_CORE_UNITS = [
    ("Mfma16x16x32", "bf16", 192, 128),
    ("WmmaGfx11", "f16", 96, 64),
    ("MmaSm80", "bf16", 192, 128),
    ("MmaSm90", "f16", 192, 128),
    ("Mfma32x32x8", "f16", 96, 64),
]
# Cores other than the target's own on NVIDIA GPUs: a tile of so many dims twice does not fit the loops of sm_90.
NVIDIA_CORES = {("joined", 512, 512): "MmaSm80"}
WIDE_CORES = ("Mfma32x32x8", "Mfma32x32x16")  # 32 rows a tile: head sizes in multiples of 32, prefill only


def attention_units() -> list[Unit]:
    """Of all problems that are served, and what joins their partial results."""
    plans = ("attention_plan", "attention_plan_listed")
    units = [Unit(name="attention_plan", source="kernels/attention/plan.hip", kernels=plans)]
    for element in TYPES:
        targets = EVERYWHERE if element in HALVES else ("cpu",)
        results = set()
        rows = [(row, listed) for table, listed in ((PROBLEMS, False), (LISTED_PROBLEMS, True)) for row in table]
        for (format, score, heads), listed in rows:
            for key_dims, value_dims in heads:
                decode = format not in PREFILL_ONLY
                made = attention(element, format, score, key_dims, value_dims, targets, decode=decode, listed=listed)
                if core := NVIDIA_CORES.get((format, key_dims, value_dims)):
                    made = [part for unit in made for part in apart_on_nvidia(unit, core)]
                units += made
                results.add(value_dims)
        units += [combine(element, value_dims, targets) for value_dims in sorted(results)]
    for core, element, size in CORE_UNITS:
        units += attention(element, "joined", "plain", size, size, ("cpu",), core)
    for core in (*CORES, "MmaSm90"):
        units += attention("bf16", "latent", "plain", 576, 512, ("cpu",), core)
    for core in WIDE_CORES:
        for element in HALVES:
            units += attention(element, "joined", "plain", 64, 64, ("cpu",), core, decode=False)
    for core, element, key_dims, value_dims in SPLIT_CORE_UNITS:
        units += attention(element, "split", "plain", key_dims, value_dims, ("cpu",), core, decode=False)
    return units


UNITS: list[Unit] = [
    *per_type("mask", widths("causal_mask", bytes_wide=(16, 1))),
    *per_type("cache", widths("kv_write", "latent_kv_write")),
    *per_type(
        "position",
        widths("rotary", "mrope", "rotary_kv_write", "mrope_kv_write", "norm_rotary_kv_write", "norm_mrope_kv_write")
        + widths("rotary_latent_kv_write"),
    ),
    *attention_units(),
]
