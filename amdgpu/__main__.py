# SPDX-License-Identifier: Apache-2.0
"""``python -m amdgpu FILE.co ...`` says which kernels of code objects can be executed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rocmforge_build import code_object

from .decode.decoder import DecodeError
from .kernel import load


def main() -> int:
    """Entry point; 1 if some kernel cannot be executed."""
    parser = argparse.ArgumentParser(prog="python -m amdgpu", description="Says which kernels can be executed.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="an AMD code object")
    failed = 0
    for file in parser.parse_args().files:
        for resources in code_object.read(file):
            try:
                kernel = load(file, resources.kernel)
                print(f"{resources.target} {resources.kernel}: {len(kernel.lines)} instructions")
            except (DecodeError, ValueError) as error:
                failed += 1
                print(f"{resources.target} {resources.kernel}: {error}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
