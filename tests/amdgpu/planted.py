# SPDX-License-Identifier: Apache-2.0
"""Faults planted in AMD kernels: waits, barriers and only writes left out in turn, and what the executor says.

    python -m tests.amdgpu.planted

writes the table of amdgpu/README.md.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from amdgpu import gpu
from amdgpu.decode.operands import Kind
from amdgpu.kernel import Kernel
from benchmarks.amd.built import table
from rocmforge_plugin import _C
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem
from tests.kernels.attention_support import Batch

from .emulation import EmulatedGpus

README = Path(gpu.__file__).with_name("README.md")
# Counters of gfx9, gfx11 and gfx12, LDS and barriers in all of them; in the plan, memory that waves share.
KERNELS = (
    ("gfx942", "attention_prefill_bf16_d128"),
    ("gfx1201", "attention_prefill_bf16_d128"),
    ("gfx1100", "attention_decode1_bf16_d128"),
    ("gfx1151", "attention_plan"),
)
_WAIT = re.compile(r"s_wait(?:cnt|_\w*cnt)")
_LDS_STORE = re.compile(r"ds_(?:write|store)")
WHAT = ("wait", "barrier", "only write", "all LDS stores")


@dataclass(frozen=True)
class Outcome:
    """Of one fault.

    `outcome` is "reported", "nothing" (the results' bits are the same by each schedule), "wrong", or "not reached":
    the batch does not come by.
    """

    what: str
    line: str
    outcome: str
    said: str = ""


def attended() -> torch.Tensor:
    """The bits of attention's output: of prompts, a chunk and decode, several items for each workgroup."""
    batch = Batch(torch.bfloat16, 128, 2, 4, [(40, 100), (1, 130), (33, 33), (1, 20), (2, 300)], 16, seed=3)
    batch.run(batch.planner())
    return batch.out.data.view(torch.int16).clone()


def planned() -> torch.Tensor:
    """The words of a plan for so many requests that all waves have some, and several."""
    new = torch.tensor([1 + 37 * (i % 3) for i in range(700)], dtype=torch.int32)
    starts = torch.cat([torch.zeros(1, dtype=torch.int32), new.cumsum(0).int()])
    lengths = new + torch.arange(700, dtype=torch.int32) * 7 % 900
    planner = AttentionPlanner(Problem(torch.bfloat16, 8, 2, 128, 128), "cpu", 700, int(starts[-1]))
    planner._words.zero_()
    planner.plan(starts, lengths, int(new.max()), int(starts[-1]))
    return planner._words.clone()


# Orders of waves, and after how many instructions another one goes on. In lock step a wave reads what others have just
# stored; from barrier to barrier they are as far apart as they can be.
Schedules = tuple[tuple[str | int, int], ...]
FEW: Schedules = (("forward", 0), ("reverse", 0))
MANY: Schedules = (("forward", 1), *FEW, (5, 13))


def run(name: str, schedules: Schedules = FEW[:1], uninitialised: bool = False) -> list[torch.Tensor]:
    """What kernel `name` makes, by each schedule."""
    found = []
    for order, quantum in schedules:
        gpu.schedule(order, quantum, uninitialised=uninitialised, limit=10_000_000)
        found.append(planned() if name == "attention_plan" else attended())
    return found


def only_writers(kernel: Kernel) -> list[int]:
    """Lines that write vector registers which no other line writes."""
    writers: dict[int, set[int]] = {}
    for row in kernel.rows:
        for operand in row["operand"][: row["results"]]:
            if operand["kind"] == Kind.VECTOR:
                for register in range(operand["reg"], operand["reg"] + operand["count"]):
                    writers.setdefault(register, set()).add(int(row["line"]))
    return sorted({next(iter(lines)) for lines in writers.values() if len(lines) == 1})


def places(kernel: Kernel) -> Iterator[tuple[str, tuple[int, ...]]]:
    """What is left out together: (kind, lines).

    Waits one by one; barriers, and on gfx12 their halves; instructions that are the only ones to write a vector
    register; and all stores to LDS at once, for what was in a place before is there without one of them.
    """
    signal = None
    for at, line in enumerate(kernel.lines):
        if _WAIT.match(line.mnemonic):
            yield "wait", (at,)
        elif line.mnemonic.startswith("s_barrier"):
            yield "barrier", (at,)
            if line.mnemonic == "s_barrier_signal":
                signal = at
            elif line.mnemonic == "s_barrier_wait" and signal is not None:
                yield "barrier", (signal, at)
    for at in only_writers(kernel):
        yield "only write", (at,)
    yield "all LDS stores", tuple(at for at, line in enumerate(kernel.lines) if _LDS_STORE.match(line.mnemonic))


def outcomes(target: str, name: str) -> list[Outcome]:
    """Of every fault in a kernel; the device of `target` is in use, and has run it."""
    kernel = gpu.kernel(target, name)
    kernel.executed_lines()
    (expected,) = run(name, uninitialised=True)  # nothing is reported of the kernel as it is
    reached = kernel.executed_lines()
    found = []
    for what, lines in places(kernel):
        first = kernel.lines[lines[0]]
        text = f"{kernel.name}+{first.address - kernel.lines[0].address:#x}: {first.text}"
        if not any(reached[at] for at in lines):
            found.append(Outcome(what, text, "not reached"))
            continue
        with kernel.without(*lines):
            try:
                # Whether a register was waited for does not hang on the order of waves.
                made = run(name, FEW if what == "wait" else MANY, uninitialised=what != "wait")
                same = all(torch.equal(out, expected) for out in made)
                found.append(Outcome(what, text, "nothing" if same else "wrong"))
            except _C.DriverError as error:
                found.append(Outcome(what, text, "reported", str(error)))
    return found


def all_outcomes(use: Callable[[str], object]) -> dict[tuple[str, str], list[Outcome]]:
    """Of all kernels; `use` puts a target's device in use."""
    found = {}
    for target, name in KERNELS:
        use(target)
        run(name)
        found[target, name] = outcomes(target, name)
    return found


def write_table(found: dict[tuple[str, str], list[Outcome]]) -> None:
    """Puts the counts between the markers of the document."""
    head = (
        "target",
        "kernel",
        "left out",
        "places",
        "reached",
        "reported",
        "changes nothing",
        "changes results unnoticed",
    )
    rows = []
    for (target, name), outcomes_of in found.items():
        for what in WHAT:
            counts = Counter(o.outcome for o in outcomes_of if o.what == what)
            if total := sum(counts.values()):
                reached = total - counts["not reached"]
                results = (counts[outcome] for outcome in ("reported", "nothing", "wrong"))
                rows.append((target, name, what, total, reached, *results))
    before, _, rest = README.read_text().partition("<!-- planted -->\n")
    _, _, after = rest.partition("<!-- /planted -->")
    body = "\n".join(table(head, rows))
    README.write_text(f"{before}<!-- planted -->\n{body}\n<!-- /planted -->{after}")


def main() -> int:
    """Entry point."""
    gpus = EmulatedGpus()
    with ExitStack() as stack:
        found = all_outcomes(lambda target: stack.enter_context(gpus.use(target, compute_units=1)))
    for outcomes_of in found.values():
        for o in outcomes_of:
            print(f"{o.outcome:11} {o.what}: {o.line} {o.said}")
    write_table(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
