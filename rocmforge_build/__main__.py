# SPDX-License-Identifier: Apache-2.0
"""``python -m rocmforge_build``: build into this source tree (what an editable install runs from)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from . import costs
from .driver import ROOT, build, recorded_costs, say
from .errors import BuildError
from .work import make_plan, requested


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m rocmforge_build", description=__doc__)
    parser.add_argument("--targets", help="comma-separated: cpu, gfxNNN, sm_NN (default: all that can be built)")
    parser.add_argument("--out", type=Path, default=ROOT / "rocmforge_plugin", help="package folder to build into")
    parser.add_argument("--jobs", type=int, help="compilers at a time (default: number of CPUs)")
    parser.add_argument("--kernels-only", action="store_true", help="leave the host module as it is")
    parser.add_argument("--list", action="store_true", help="show which targets can be built here, and stop")
    parser.add_argument(
        "--costs",
        nargs="?",
        const="table",
        choices=("table", "json"),
        help="show what was built costs to compile, as a table or as JSON, and stop; the exit status "
        f"is 1 if that is more than {costs.LIMIT_SECONDS} seconds of one core, or not known",
    )
    args = parser.parse_args(argv)
    targets = args.targets.split(",") if args.targets else None
    try:
        if args.list:
            return _list(targets)
        if args.costs:
            return _show_costs(targets, args.costs)
        build(args.out, targets=targets, jobs=args.jobs, extension=not args.kernels_only)
    except BuildError as error:
        say(str(error))
        return 1
    return 0


def _list(targets: Sequence[str] | None) -> int:
    plan = make_plan(requested(targets) if targets else None)
    for target, compiler in plan.targets.items():
        print(f"{target:10} {compiler.path}")
    for reason, names in plan.left_out_by_reason().items():
        print(f"left out: {', '.join(names)}: {reason}")
    return 0


def _show_costs(targets: Sequence[str] | None, form: str) -> int:
    known, unknown = recorded_costs(targets=targets)
    print(costs.as_json(known) if form == "json" else "\n".join(costs.table(known)))
    problem = costs.too_much(known)
    if unknown:
        problem = (
            f"{len(unknown)} objects are not built, so what they cost is not known ({unknown[0].label}, ...): "
            "python -m rocmforge_build"
        )
    if problem:
        say(problem)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
