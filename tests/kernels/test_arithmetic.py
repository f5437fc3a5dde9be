# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rocmforge_build.toolchain import find_cxx, host_flags

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["fast_div", "key_spans"])
def test_arithmetic(name: str, tmp_path: Path) -> None:
    """Division by a known number, and the interval of keys that a mask lets a row see, over all small cases."""
    program = tmp_path / name
    command = [
        find_cxx().path,
        *host_flags(),
        "-O1",
        "-DRF_TARGET_CPU",
        "-fsanitize=undefined",
        "-fno-sanitize-recover",
        f"-I{ROOT}",
        str(Path(__file__).with_name(f"{name}.cpp")),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
