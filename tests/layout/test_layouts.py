# SPDX-License-Identifier: Apache-2.0
"""Each matrix core's published layout, and the two products of attention computed through it on a wave of fibers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kernels import variants
from rocmforge_build.toolchain import find_cxx, host_flags
from tests import HANG

ROOT = Path(__file__).resolve().parents[2]
CORES = ("Mfma16x16x16", *variants.CORES, *variants.WIDE_CORES)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_layout(tmp_path: Path, core: str, kind: str) -> None:
    """Operands are covered, slots agree, statistics fit, and K Q^T, V^T P are exact for small integers."""
    program = tmp_path / "layouts"
    _compile(
        program,
        [ROOT / "tests/layout/layouts.cpp", ROOT / "kernels/target/host_block.cpp"],
        f"-DCORE={core}",
        f"-DTYPE={kind}",
    )
    result = subprocess.run([program], capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0, result.stdout[:4000]


def _compile(program: Path, sources: list[Path], *flags: str) -> None:
    command = [
        find_cxx().path,
        *host_flags(),
        "-O0",
        "-DRF_TARGET_CPU",
        f"-I{ROOT}",
        *flags,
        *map(str, sources),
        "-o",
        str(program),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert result.returncode == 0, result.stderr[:4000]
