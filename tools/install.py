#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Build the kernels into the source tree and install it, editable, into the interpreter that runs this file.

The build is cached by content, and the installation (which gives vLLM its entry points) is repeated only when the
files that describe it changed, so a second run takes about a second.
"""

from __future__ import annotations

import hashlib
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
STAMP = pathlib.Path(sys.prefix) / "rocmforge-installed.stamp"


def main() -> int:
    """Entry point; the exit status of the step that failed, else 0."""
    built = subprocess.run([sys.executable, "-m", "rocmforge_build"], cwd=ROOT, check=False, stdout=sys.stderr)
    if built.returncode:
        return built.returncode
    files = ("pyproject.toml", "setup.py", "MANIFEST.in", "rocmforge_plugin/__init__.py")  # the last has the version
    described = b"".join((ROOT / name).read_bytes() for name in files)
    wanted = hashlib.sha256(described + str(ROOT).encode()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return 0
    print("[install] rocmforge, editable", file=sys.stderr, flush=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-input",
        "--disable-pip-version-check",
        "--no-build-isolation",
        "--no-deps",
        "-e",
        str(ROOT),
    ]
    installed = subprocess.run(command, check=False, stdout=sys.stderr)
    if installed.returncode == 0:
        STAMP.write_text(wanted)
    return installed.returncode


if __name__ == "__main__":
    sys.exit(main())
