# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
from pathlib import Path

from rocmforge_build.toolchain import find_cxx

ROOT = Path(__file__).parents[2]


def test_fast_division_divides(tmp_path):
    program = tmp_path / "fast_div"
    command = [find_cxx().path, "-std=c++20", "-O1", "-fsanitize=undefined", "-fno-sanitize-recover", f"-I{ROOT}",
               str(Path(__file__).with_name("fast_div.cpp")), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
