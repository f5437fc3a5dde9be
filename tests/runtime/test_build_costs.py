# SPDX-License-Identifier: Apache-2.0
"""What an instantiation costs is measured, kept, shown, and held to a bound."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rocmforge_build import __main__ as command
from rocmforge_build import build, costs, driver
from rocmforge_build.cache import Cache, Cost
from rocmforge_build.jobs import Job, Runner

BURN = "import sys, time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass\n"


def job(target: str, name: str, family: str) -> Job:
    return Job(target, name, family, ("true", target, name), (), ".o")


MADE_UP = {
    job("gfx942", "a", "attention"): Cost(100.0, 1_000_000),
    job("gfx942", "b", "mask"): Cost(1.0, 2_000),
    job("cpu", "a", "attention"): Cost(50.0, 500_000),
    job("cpu", "library", costs.LINK): Cost(0.5, 502_000),
}


def test_time_is_that_of_the_compiler_and_what_it_starts(tmp_path: Path) -> None:
    """Seconds of a core, so neither a sleep nor other processes count."""
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}], check=True)"
    program = f"{inner}; import time; time.sleep(0.5); open(sys.argv[-1], 'w').write('12345')"
    made = Job("cpu", "slow", "toy", (sys.executable, "-c", program), (), ".o")
    with Cache(tmp_path) as cache:
        runner = Runner(tmp_path, cache, 1, lambda line: None)
        runner.run([made])
        again = Runner(tmp_path, cache, 1, pytest.fail)
        again.run([made])
    cost = runner.report.costs[made]
    assert cost.seconds >= 0.4 and cost.size == 5
    assert again.report.costs == {made: cost} and again.report.cached == 1
    assert json.loads((tmp_path / f"{made.result}.json").read_text()) == {"seconds": cost.seconds, "size": 5}


def test_a_build_ends_with_what_it_costs(tree: Path) -> None:
    def run(name: str) -> list[str]:
        lines: list[str] = []
        build(tree / name, root=tree, targets=["cpu"], extension=False, progress=lines.append)
        return lines

    lines = run("package")
    rows = {line.split("  ")[0]: line.split()[-3:] for line in lines if not line.startswith("[")}
    assert {"cpu", "toy", "toy/lone", "target/host_block", "link", "cpu toy"} <= set(rows)
    assert rows["cpu"][0] == "4" and float(rows["cpu"][1]) > 0 and float(rows["cpu"][2]) > 0
    assert not [line for line in run("package") if line.startswith("most expensive")]  # nothing was compiled


def test_the_recorded_costs_are_of_the_sources_as_they_are(tree: Path) -> None:
    table = tree / "kernels" / "variants.py"
    build(tree / "package", root=tree, targets=["cpu"])
    known, unknown = driver.recorded_costs(root=tree, targets=["cpu"])
    assert {made.label for made in known} >= {"cpu toy", "cpu lone", "cpu library"} and not unknown
    table.write_text(table.read_text().replace('kernels=("lone",)', 'kernels=("lone",), defines={"X": 1}'))
    known, unknown = driver.recorded_costs(root=tree, targets=["cpu"])
    assert {made.label for made in unknown} == {"cpu lone", "cpu library"}


def test_tables_add_up() -> None:
    lines = [line.split() for line in costs.table(MADE_UP)]
    assert ["gfx942", "2", "101.0", "1002"] in lines and ["cpu", "2", "50.5", "500"] in lines
    assert ["attention", "2", "150.0", "1500"] in lines and ["mask", "1", "1.0", "2"] in lines
    dearest = lines[lines.index(["most", "expensive", "objects", "core", "s", "kB"]) + 1 :]
    assert dearest[0] == ["gfx942", "a", "1", "100.0", "1000"] and dearest[1][:2] == ["cpu", "a"]
    assert " ".join(lines[-1]) == "4 objects: 152 seconds of one core (at most 1800 for all targets), 1.5 MB"
    data = json.loads(costs.as_json(MADE_UP))
    assert data["seconds"] == 151.5 == sum(entry["seconds"] for entry in data["objects"])
    assert data["limit_seconds"] == 1800 and data["objects"][0] == {
        "target": "gfx942",
        "family": "attention",
        "name": "a",
        "seconds": 100.0,
        "bytes": 1_000_000,
    }


@pytest.mark.parametrize(("seconds", "status"), [(1700, 0), (1900, 1)])
def test_the_gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seconds: int, status: int
) -> None:
    found = {**MADE_UP, job("gfx950", "a", "attention"): Cost(seconds - costs.total_seconds(MADE_UP), 1)}
    monkeypatch.setattr(command, "recorded_costs", lambda targets: (found, []))
    assert command.main(["--costs"]) == status
    printed = capsys.readouterr()
    assert f"{seconds} seconds of one core" in printed.out
    assert ("more than the 1800 that it may" in printed.err) == bool(status)


def test_the_gate_does_not_guess(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "recorded_costs", lambda targets: (MADE_UP, [job("sm_90", "b", "mask")]))
    assert command.main(["--costs", "json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["bytes"] == 1_502_000
    assert "1 objects are not built" in printed.err and "sm_90 b" in printed.err
