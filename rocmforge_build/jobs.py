# SPDX-License-Identifier: Apache-2.0
"""Compiler calls: a content-addressed cache of their results, and a pool that runs them."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

_UNUSED_AFTER_DAYS = 30


class BuildError(RuntimeError):
    """The build cannot go on; the message says why in the user's terms."""


@dataclass(frozen=True)
class Job:
    """One compiler call.

    Attributes:
        label: what the progress line shows.
        command: the call without the output file; `-o FILE` is appended.
        inputs: what besides the command decides the result (contents of sources, version of the compiler).
        suffix: of the output file.
    """

    label: str
    command: tuple[str, ...]
    inputs: tuple[str, ...]
    suffix: str

    @property
    def key(self) -> str:
        """Name of the result in the cache."""
        return hashlib.sha256("\0".join((*self.command, "", *self.inputs)).encode()).hexdigest()


@dataclass
class Report:
    """What a build did."""

    compiled: int = 0
    cached: int = 0
    seconds: float = 0.0


class Runner:
    """Runs jobs from the repository root, at most `workers` at a time, and keeps their results in `cache`."""

    def __init__(self, root: Path, cache: Path, workers: int, say: Callable[[str], None]) -> None:
        self._root = root
        self._cache = cache
        self._workers = workers
        self._say = say
        self.report = Report()
        cache.mkdir(parents=True, exist_ok=True)

    def run(self, jobs: Sequence[Job]) -> dict[Job, Path]:
        """Returns where each job's result lies. Raises BuildError with the compiler's words if one fails."""
        start = time.monotonic()
        results: dict[Job, Path] = {}
        missing: list[Job] = []
        for job in jobs:
            path = self._path(job)
            results[job] = path
            if path.exists():
                os.utime(path)
                self.report.cached += 1
            else:
                missing.append(job)
        missing = list(dict.fromkeys(missing))
        width = len(str(len(missing)))
        with ThreadPoolExecutor(self._workers) as pool:
            running = {pool.submit(self._compile, job): job for job in missing}
            try:
                for number, done in enumerate(as_completed(running), 1):
                    seconds = done.result()
                    self.report.compiled += 1
                    self._say(f"[{number:{width}}/{len(missing)}] {running[done].label} ({seconds:.1f} s)")
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        self.report.seconds += time.monotonic() - start
        return results

    def drop_unused(self) -> None:
        """Removes results that no build has asked for in a month."""
        oldest = time.time() - _UNUSED_AFTER_DAYS * 86400
        for path in self._cache.iterdir():
            if path.stat().st_mtime < oldest:
                path.unlink()

    def _path(self, job: Job) -> Path:
        return self._cache / (job.key + job.suffix)

    def _compile(self, job: Job) -> float:
        start = time.monotonic()
        # Written beside and renamed: a build that is cut off leaves no half of a result.
        handle, name = tempfile.mkstemp(suffix=job.suffix, dir=self._cache, prefix="tmp-")
        os.close(handle)
        try:
            command = [*job.command, "-o", name]
            done = subprocess.run(command, cwd=self._root, capture_output=True, text=True, errors="replace")
            words = (done.stderr + done.stdout).strip()
            if done.returncode != 0:
                raise BuildError(f"{job.label} does not compile:\n{shlex.join(command)}\n{words}")
            if words:
                self._say(f"{job.label}:\n{words}")
            os.replace(name, self._path(job))
        finally:
            if os.path.exists(name):
                os.unlink(name)
        return time.monotonic() - start


def install(source: Path, target: Path) -> None:
    """Puts a result in its place. A process that has the old file mapped keeps it; an equal file is left as it is."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        if target.read_bytes() == source.read_bytes():
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, beside)
    beside.chmod(0o755 if ".so" in target.suffixes else 0o644)
    os.replace(beside, target)
