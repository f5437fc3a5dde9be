# SPDX-License-Identifier: Apache-2.0
"""What to compile, and where the results go.

Environment: ROCMFORGE_TARGETS (for example ``cpu,gfx942``; default: all whose compiler is found), ROCMFORGE_JOBS,
ROCMFORGE_CACHE (default: ``rocmforge`` in the user's cache folder), and the compilers' names (see toolchain.py).
"""

from __future__ import annotations

import fcntl
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import costs
from .cache import Cache, Cost, folder_for
from .jobs import Job, Report, Runner, install
from .work import Work, plan_work

ROOT = Path(__file__).resolve().parent.parent
CPU_LIBRARY = "librocmforge_cpu.so"
INDEX = "kernels.txt"  # one line per kernel, `KERNEL FILE`; the runtime finds code by it


def say(line: str) -> None:
    """Default progress output."""
    print(f"rocmforge: {line}", file=sys.stderr, flush=True)


def build(
    package: Path,
    *,
    root: Path = ROOT,
    targets: Sequence[str] | None = None,
    jobs: int | None = None,
    extension: bool = True,
    progress: Callable[[str], None] = say,
) -> Report:
    """Builds kernels (and the host module, if `extension`) into `package`, the folder of ``rocmforge_plugin``.

    Args:
        targets: names such as ``cpu``, ``gfx942``, ``sm_90``; default ROCMFORGE_TARGETS, else all that can be built.
            A target that is named and cannot be built is an error; one that is only a default is left out with a line.

    Raises:
        BuildError: a compiler is missing or a source does not compile.
    """
    workers = jobs or int(os.environ.get("ROCMFORGE_JOBS") or 0) or os.cpu_count() or 1
    cache = Cache(folder_for(root, progress))
    with cache:
        work = plan_work(root, cache, targets, extension, progress)
        runner = Runner(root, cache, workers, progress)
        progress(
            f"{len(work.objects)} objects for {', '.join(work.units)}, {workers} at a time; results are kept in "
            f"{cache.folder}"
        )
        done = runner.run(work.objects) | runner.run(work.links)
        with _installing_alone(root):
            for target in work.units:
                _install_target(package, target, work, done)
            if work.module:
                install(done[work.module], package / ("_C" + sysconfig.get_config_var("EXT_SUFFIX")))
    cache.drop_unused()
    report = runner.report
    if report.compiled:
        for line in costs.table(report.costs):
            progress(line)
    progress(f"done: {report.compiled} compiled, {report.cached} unchanged, {report.seconds:.1f} s")
    return report


def recorded_costs(
    *, root: Path = ROOT, targets: Sequence[str] | None = None, progress: Callable[[str], None] = say
) -> tuple[dict[Job, Cost], list[Job]]:
    """(what each object of a build costs, those that were never compiled): of `root` as it is now, nothing is built."""
    with Cache(folder_for(root, progress)) as cache:
        work = plan_work(root, cache, targets, True, progress)
        found = {job: cache.find(job.result) for job in (*work.objects, *work.links)}
    return (
        {job: cost for job, cost in found.items() if cost is not None},
        [job for job, cost in found.items() if cost is None],
    )


def _install_target(package: Path, target: str, work: Work, done: Mapping[Job, Path]) -> None:
    folder = package / "_kernels" / target
    files: dict[str, Path] = {}
    lines = [f"interface {work.interface}"]
    if target == "cpu":
        assert work.library is not None
        files[CPU_LIBRARY] = done[work.library]
    for unit, job in work.units[target]:
        name = CPU_LIBRARY if target == "cpu" else unit.name + job.suffix
        files.setdefault(name, done[job])
        lines += [f"{kernel} {name}" for kernel in unit.kernels]
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        install(path, folder / name)
    (folder / INDEX).write_text("\n".join(lines) + "\n")
    for stale in folder.iterdir():
        if stale.name not in files and stale.name != INDEX:
            stale.unlink()


@contextmanager
def _installing_alone(root: Path) -> Iterator[None]:
    """One build at a time puts its files into the package, so that these are all of one build."""
    lock = root / "build" / "install.lock"
    lock.parent.mkdir(exist_ok=True)
    with open(lock, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
