# SPDX-License-Identifier: Apache-2.0
"""The compiler's own report of every AMD kernel: nothing spilled, and no worse than the committed table.

resources.csv has a row for each kernel and target, written by ``python -m benchmarks.amd.resources``. A row that
got better passes; write the table again to hold it.
"""

from __future__ import annotations

import csv
import re
import struct
from pathlib import Path

import pytest

from rocmforge_build import code_object, driver, toolchain, units
from rocmforge_build.code_object import PROCESSORS, Resources
from rocmforge_plugin.device import kernels_dir

TARGETS = toolchain.AMD_TARGETS
TABLE = Path(__file__).with_name("resources.csv")
KERNELS = {kernel for unit in units.load_units(driver.ROOT) if "amd" in unit.targets for kernel in unit.kernels}


def table() -> dict[tuple[str, str], dict[str, str]]:
    with TABLE.open(newline="") as file:
        return {(row["target"], row["kernel"]): row for row in csv.DictReader(file)}


def files(target: str) -> list[Path]:
    found = sorted((kernels_dir() / target).glob("*.co"))
    if not found:
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    return found


def kernels(target: str) -> list[Resources]:
    return [kernel for file in files(target) for kernel in code_object.read(file)]


def row(kernel: Resources) -> str:
    return (
        f"{kernel.target},{kernel.kernel}: {kernel.vgprs} VGPRs ({kernel.agprs} of them accumulation registers), "
        f"{kernel.lds} bytes of LDS, occupancy {kernel.occupancy:g}"
    )


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_is_spilled(target: str) -> None:
    """No spills, no scratch, and a workgroup that fits: whatever the compiler."""
    bad = [
        f"{row(k)}, {k.scratch} bytes of scratch, spills {k.vgpr_spills} VGPRs and {k.sgpr_spills} SGPRs"
        for k in kernels(target)
        if k.scratch or k.vgpr_spills or k.sgpr_spills or k.lds > PROCESSORS[target].group_lds or k.occupancy < 1
    ]
    assert not bad, "\n".join(["", *bad])


@pytest.mark.parametrize("target", TARGETS)
def test_no_worse_than_the_table(target: str) -> None:
    """VGPRs and LDS at most, occupancy at least what the table says."""
    rows, bad = table(), []
    built = kernels(target)
    assert {kernel.kernel for kernel in built} == KERNELS
    made_by, here = next(iter(rows.values()))["clang"], clang(files(target)[0])
    if here != made_by:
        pytest.skip(f"the table is of clang {made_by} and {target} was built by clang {here}: registers are its choice")
    for kernel in built:
        known = rows.get((kernel.target, kernel.kernel))
        if known is None:
            bad.append(f"{row(kernel)}: not in {TABLE.name}")
        elif (
            kernel.vgprs > int(known["vgprs"])
            or kernel.lds > int(known["lds"])
            or kernel.occupancy < float(known["occupancy"])
        ):
            bad.append(f"{row(kernel)}; the table has {known['vgprs']}, {known['lds']} and {known['occupancy']}")
    assert not bad, "\n".join(["", *bad, "If that is meant: python -m benchmarks.amd.resources"])


def clang(path: Path) -> str:
    found = re.search(r"clang version (\d+)", code_object.compiler(path))
    return found[1] if found else "of another name"


def test_table_has_no_stale_rows() -> None:
    assert {(t, k) for t, k in table()} == {(t, k) for t in TARGETS for k in KERNELS}


def test_reader_refuses_other_files(tmp_path: Path) -> None:
    other = tmp_path / "other.co"
    other.write_bytes(b"\x7fELF" + bytes(14) + struct.pack("<H", 62) + bytes(44))
    with pytest.raises(ValueError, match="is not an AMD code object"):
        code_object.read(other)


@pytest.mark.parametrize(
    ("target", "vgprs", "lds", "threads", "wave", "occupancy"),
    [
        ("gfx942", 128, 0, 256, 64, 4),
        ("gfx942", 129, 0, 256, 64, 3),
        ("gfx942", 8, 0, 256, 64, 8),
        ("gfx942", 8, 32769, 256, 64, 1),
        ("gfx950", 8, 32769, 256, 64, 4),
        ("gfx942", 257, 0, 512, 64, 0),
        ("gfx1100", 96, 0, 256, 32, 16),
        ("gfx1100", 97, 0, 256, 32, 12),
        ("gfx1201", 8, 40000, 128, 32, 3),
        ("gfx1201", 256, 0, 1024, 32, 0),
    ],
)
def test_occupancy(target: str, vgprs: int, lds: int, threads: int, wave: int, occupancy: float) -> None:
    """Registers in granules, LDS per CU (WGP on RDNA), workgroups as a whole."""
    assert Resources(target, "k", vgprs, 0, 0, lds, 0, 0, 0, threads, wave).occupancy == occupancy
