# SPDX-License-Identifier: Apache-2.0
"""What the build costs: seconds of one core and bytes, by target and by family of units, and how much it may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from .cache import Cost
from .jobs import Job

LIMIT_SECONDS = 30 * 60  # of one core, for all targets and the host module together
LINK = "link"  # the family of what puts objects together; its bytes are those of the objects
_SHOWN = 10  # of the most expensive


def total_seconds(costs: Mapping[Job, Cost]) -> float:
    """Of one core, for all of it."""
    return sum(cost.seconds for cost in costs.values())


def total_bytes(costs: Mapping[Job, Cost]) -> int:
    """Of all objects."""
    return sum(_bytes(job, cost) for job, cost in costs.items())


def headline(costs: Mapping[Job, Cost]) -> str:
    """One line: what all costs, and what it may cost."""
    return (
        f"{len(costs)} objects: {total_seconds(costs):.0f} seconds of one core (at most {LIMIT_SECONDS} for all "
        f"targets), {total_bytes(costs) / 1e6:.1f} MB"
    )


def table(costs: Mapping[Job, Cost]) -> list[str]:
    """Lines for people: by target, by family, the most expensive objects, and all."""
    lines = _groups("target", costs, lambda job: job.target)
    lines += ["", *_groups("family", costs, lambda job: job.family)]
    dearest = sorted(costs.items(), key=lambda entry: -entry[1].seconds)[:_SHOWN]
    lines += ["", *_rows("most expensive", [(job.label, [(job, cost)]) for job, cost in dearest])]
    return [*lines, "", headline(costs)]


def as_json(costs: Mapping[Job, Cost]) -> str:
    """For programs: every object with its target, family, seconds and bytes, and the limit."""
    objects = [
        {"target": job.target, "family": job.family, "name": job.name, "seconds": cost.seconds, "bytes": cost.size}
        for job, cost in costs.items()
    ]
    return json.dumps(
        {
            "limit_seconds": LIMIT_SECONDS,
            "seconds": round(total_seconds(costs), 3),
            "bytes": total_bytes(costs),
            "objects": objects,
        },
        indent=1,
    )


def too_much(costs: Mapping[Job, Cost]) -> str | None:
    """Why the build has grown too expensive; None if it has not."""
    seconds = total_seconds(costs)
    if seconds <= LIMIT_SECONDS:
        return None
    return (
        f"the build takes {seconds:.0f} seconds of one core, more than the {LIMIT_SECONDS} that it may: fewer "
        "instantiations, or cheaper ones"
    )


def _bytes(job: Job, cost: Cost) -> int:
    return 0 if job.family == LINK else cost.size


def _groups(title: str, costs: Mapping[Job, Cost], name_of: Callable[[Job], str]) -> list[str]:
    groups: dict[str, list[tuple[Job, Cost]]] = {}
    for job, cost in costs.items():
        groups.setdefault(name_of(job), []).append((job, cost))
    return _rows(title, list(groups.items()))


def _rows(title: str, groups: list[tuple[str, list[tuple[Job, Cost]]]]) -> list[str]:
    lines = [f"{title:36} {'objects':>7} {'core s':>8} {'kB':>8}"]
    for name, entries in groups:
        seconds = sum(cost.seconds for _, cost in entries)
        size = sum(_bytes(job, cost) for job, cost in entries)
        lines.append(f"{name:36} {len(entries):7} {seconds:8.1f} {size / 1e3:8.0f}")
    return lines
