# SPDX-License-Identifier: Apache-2.0
"""What a wheel holds beside code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests import HANG

ROOT = Path(__file__).resolve().parents[2]


def test_a_wheel_holds_the_evaluation(tmp_path: Path) -> None:
    """The local tasks and the small checkpoints travel with the package, byte for byte."""
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=HANG,
    )
    packed = tmp_path / "rocmforge_plugin" / "evaluate" / "data"
    for part in ("tasks", "checkpoints"):
        names = [
            p.relative_to(ROOT / "evals" / part)
            for p in (ROOT / "evals" / part).rglob("*")
            if p.is_file() and "__pycache__" not in p.parts
        ]
        assert names
        for name in names:
            assert (packed / part / name).read_bytes() == (ROOT / "evals" / part / name).read_bytes()
