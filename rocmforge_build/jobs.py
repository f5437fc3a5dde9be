# SPDX-License-Identifier: Apache-2.0
"""Compiler calls, and the pool that runs those whose results the cache lacks."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .cache import Cache, Cost
from .errors import BuildError

_POLL_SECONDS = 0.2  # how often it is asked whether another build has finished an object


@dataclass(frozen=True)
class Job:
    """One compiler call.

    Attributes:
        target: that it is for: ``cpu``, a GPU architecture, or ``host``.
        name: of what it makes.
        family: of the units that are made from the same source.
        command: the call without the output file; `-o FILE` is appended.
        inputs: what besides the command decides the result (contents of sources, version of the compiler).
        suffix: of the output file.
        places: words of the command that are paths of this machine, each with what decides the result in its place, so
            that another user, a temporary environment or another source tree finds the same result.
    """

    target: str
    name: str
    family: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    suffix: str
    places: tuple[tuple[str, str], ...] = ()

    @property
    def label(self) -> str:
        """What the progress line shows."""
        return f"{self.target} {self.name}"

    @cached_property
    def result(self) -> str:
        """Name of the result in the cache."""
        stands_for = dict(self.places)
        words = (stands_for.get(word, word) for word in self.command)
        return hashlib.sha256("\0".join((*words, "", *self.inputs)).encode()).hexdigest() + self.suffix


@dataclass
class Report:
    """What a build did, and what everything in it costs to compile, whenever it was compiled."""

    compiled: int = 0
    cached: int = 0
    seconds: float = 0.0
    costs: dict[Job, Cost] = field(default_factory=dict)


class Runner:
    """Runs jobs from the repository root, at most `workers` at a time, and keeps their results in `cache`."""

    def __init__(self, root: Path, cache: Cache, workers: int, say: Callable[[str], None]) -> None:
        self._root = root
        self._cache = cache
        self._workers = workers
        self._say = say
        self.report = Report()

    def run(self, jobs: Sequence[Job]) -> dict[Job, Path]:
        """Returns where each job's result lies. Raises BuildError with the compiler's words if one fails."""
        start = time.monotonic()
        missing: dict[str, Job] = {}
        for job in jobs:
            cost = self._cache.find(job.result)
            if cost is None:
                missing[job.result] = job
            else:
                self._account(job, cost, fresh=False)
        waiting, told = list(missing.values()), False
        while waiting:
            left = self._compile_all(waiting)
            if len(left) == len(waiting):
                if not told:
                    self._say(f"waiting for another build, which compiles {', '.join(job.label for job in left)}")
                    told = True
                time.sleep(_POLL_SECONDS)
            waiting = left
        for job in jobs:  # those that are equal to another one
            self.report.costs.setdefault(job, self.report.costs[missing.get(job.result, job)])
        self.report.seconds += time.monotonic() - start
        return {job: self._cache.path(job.result) for job in jobs}

    def _account(self, job: Job, cost: Cost, fresh: bool) -> None:
        self.report.compiled += fresh
        self.report.cached += not fresh
        self.report.costs[job] = cost

    def _compile_all(self, jobs: list[Job]) -> list[Job]:
        """Compiles `jobs`, but those that another build is compiling, which it returns."""
        left = []
        width = len(str(len(jobs)))
        with ThreadPoolExecutor(self._workers) as pool:
            running = {pool.submit(self._compile, job): job for job in jobs}
            try:
                for number, done in enumerate(as_completed(running), 1):
                    job, (cost, fresh) = running[done], done.result()
                    if cost is None:
                        left.append(job)
                        continue
                    self._account(job, cost, fresh)
                    how = f"{cost.seconds:.1f} s" if fresh else "by another build"
                    self._say(f"[{number:{width}}/{len(jobs)}] {job.label} ({how})")
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return left

    def _compile(self, job: Job) -> tuple[Cost | None, bool]:
        """(its cost, whether it was compiled just now); no cost if another build has it in hand."""
        with self._cache.claim(job.result) as mine:
            if not mine:
                return None, False
            cost = self._cache.find(job.result)
            if cost is not None:  # another build was faster
                return cost, False
            beside = self._cache.temporary(job.suffix)
            try:
                command = [*job.command, "-o", str(beside)]
                status, words, seconds = _call(command, self._root)
                if status != 0:
                    raise BuildError(f"{job.label} does not compile:\n{shlex.join(command)}\n{words}")
                if words:
                    self._say(f"{job.label}:\n{words}")
                return self._cache.keep(job.result, beside, seconds), True
            finally:
                beside.unlink(missing_ok=True)


def _call(command: list[str], folder: Path) -> tuple[int, str, float]:
    """(exit status, what was said, seconds of a core) of a command; the seconds include those of what it starts."""
    with subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        words = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, words.strip(), used.ru_utime + used.ru_stime


def install(source: Path, target: Path) -> None:
    """Puts a result in its place. A process that has the old file mapped keeps it; an equal file is left as it is."""
    if target.exists() and filecmp.cmp(source, target, shallow=False):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    beside.chmod(0o755 if ".so" in target.suffixes else 0o644)
    os.replace(beside, target)
