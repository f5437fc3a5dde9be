# SPDX-License-Identifier: Apache-2.0
"""One run in a process of its own: `python -m rocmforge_plugin.evaluate.worker JOB.json`, started by the command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rocmforge_plugin.evaluate import session
from rocmforge_plugin.evaluate.records import Run


def work(job: dict[str, Any]) -> Run:
    """Do what the job says: see `command.Job`."""
    session.prepare_environment()
    plan = session.Plan(**job["plan"])
    wanted = plan.forced
    if wanted is None and job.get("forced_from"):
        wanted = Run.load(Path(job["forced_from"])).about["forced"]
    if job.get("url"):
        from rocmforge_plugin.evaluate.server import ServerSession

        return ServerSession(plan, job["url"], job["backend"], job["dtype"], job["label"]).run(wanted)
    engine = session.Session(plan, job["backend"], job["dtype"], job["label"], job.get("order"))
    return engine.run(wanted)


def main() -> None:
    """Read the job, run it, keep the result where the job says."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work(job).save(Path(job["out"]))


if __name__ == "__main__":
    main()
