# SPDX-License-Identifier: Apache-2.0
"""Runs tasks of `worker.py`, each in its own process group with a time limit and a log."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

WORKER = (sys.executable, "-m", "benchmarks.serving.worker")
LOG_LINES = 14


class Task:
    """A worker process.

    Args:
        name: shown in reports.
        spec: for `worker.py`; the file for the result is added.
        folder: for its files.
        env: environment variables beside this process's; None removes one.
        limit: seconds it may run.
        gated: it waits for `go` before it measures.
    """

    def __init__(
        self,
        name: str,
        spec: dict[str, Any],
        folder: pathlib.Path,
        env: dict[str, str | None],
        limit: float,
        gated: bool = False,
    ) -> None:
        self.name, self.env, self.limit, self.gated = name, env, limit, gated
        self.at = folder / f"{name.replace(' ', '_').replace('/', '_')}.json"
        self.spec = spec | {"result": str(self.at)}
        self.log = self.at.with_suffix(".log")
        self.process: subprocess.Popen | None = None
        self.started = self.took = 0.0
        self.late = False

    def start(self) -> None:
        spec = self.at.with_suffix(".spec")
        spec.write_text(json.dumps(self.spec))
        env = {k: v for k, v in (dict(os.environ) | self.env).items() if v is not None}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*WORKER, str(spec)], stdout=log, stderr=log, env=env, start_new_session=True
            )
        self.started = time.monotonic()

    def go(self) -> None:
        self.at.with_suffix(".go").touch()

    @property
    def ready(self) -> bool:
        return self.at.with_suffix(".ready").exists()

    def running(self, deadline: float) -> bool:
        """Whether it still runs; past its limit or the deadline it is ended, and what it left behind always is."""
        assert self.process is not None
        over = time.monotonic() > min(self.started + self.limit, deadline)
        if self.process.poll() is None and not over:
            return True
        self.late = self.process.poll() is None
        self.took = time.monotonic() - self.started
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.late = False  # it has just ended by itself, and so have its children
        self.process.wait()
        return False

    def result(self) -> dict[str, Any]:
        """What it saved, with `failed` (why, and the end of its log) unless it came to its end."""
        saved = json.loads(self.at.read_text()) if self.at.exists() else {}
        if self.spec["task"] == "prepare" and saved:
            return saved
        if not saved.get("done"):
            status = self.process.returncode if self.process else None
            why = f"stopped after {self.took:.0f} s" if self.late else f"exit status {status}"
            saved["failed"] = f"{why}\n{log_end(self.log.read_text(errors='replace'))}"
        return saved


def log_end(text: str) -> str:
    """The lines of a log that say what went wrong: the errors in it, then its end."""
    lines = [line[:220] for line in text.splitlines() if line.strip()]
    end = lines[-LOG_LINES:]
    errors = [line for line in lines[:-LOG_LINES] if "Error" in line and "suppress" not in line]
    return "\n".join("    " + line for line in [*errors[:4], "...", *end])


def run_pool(tasks: Sequence[Task], width: int, deadline: float, done: Callable[[Task], None]) -> None:
    """Run tasks, at most `width` at once, and report each as it ends; what the deadline leaves is reported unrun."""
    waiting, active = list(tasks), list[Task]()
    while waiting or active:
        while waiting and len(active) < width and time.monotonic() < deadline:
            active.append(waiting.pop(0))
            active[-1].start()
        for task in list(active):
            if not task.running(deadline):
                active.remove(task)
                done(task)
        if waiting and time.monotonic() >= deadline and not active:
            print(f"out of time: {', '.join(t.name for t in waiting)} not run", flush=True)
            return
        time.sleep(0.1)


def run_gated(tasks: Sequence[Task], start_limit: float, deadline: float, done: Callable[[Task], None]) -> None:
    """Start all tasks together, then, once each is ready, has ended or is late, let them measure one after another."""
    for task in tasks:
        task.start()
    late = min(time.monotonic() + start_limit, deadline)
    starting = list(tasks)
    while starting:
        for task in list(starting):
            if task.ready:
                starting.remove(task)
            elif not task.running(late):
                starting.remove(task)
                done(task)
        time.sleep(0.1)
    for task in tasks:
        if task.ready and task.took == 0:
            task.go()
            task.limit = max(task.limit, time.monotonic() - task.started + task.spec["measure_limit"])
            while task.running(deadline):
                time.sleep(0.05)
            done(task)
