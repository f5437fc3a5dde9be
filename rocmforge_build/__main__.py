# SPDX-License-Identifier: Apache-2.0
"""``python -m rocmforge_build``: build into this source tree (what an editable install runs from)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .driver import ROOT, build, make_plan
from .jobs import BuildError


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rocmforge_build", description=__doc__)
    parser.add_argument("--targets", help="comma-separated: cpu, gfxNNN, sm_NN (default: all that can be built)")
    parser.add_argument("--out", type=Path, default=ROOT / "rocmforge_plugin", help="package folder to build into")
    parser.add_argument("--jobs", type=int, help="compilers at a time (default: number of CPUs)")
    parser.add_argument("--kernels-only", action="store_true", help="leave the host module as it is")
    parser.add_argument("--list", action="store_true", help="show which targets can be built here, and stop")
    args = parser.parse_args(argv)
    try:
        if args.list:
            plan = make_plan(None)
            for target, compiler in plan.targets.items():
                print(f"{target:10} {compiler.path}")
            for reason, names in plan.left_out_by_reason().items():
                print(f"left out: {', '.join(names)}: {reason}")
            return 0
        targets = args.targets.split(",") if args.targets else None
        build(args.out, targets=targets, jobs=args.jobs, extension=not args.kernels_only)
    except BuildError as error:
        print(f"rocmforge: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
