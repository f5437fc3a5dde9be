# SPDX-License-Identifier: Apache-2.0
"""Measure what the verdict's limits rest on: the noise between correct backends, and what planted faults look like.

    python evals/calibrate.py run --dtype float32 --out build/calibration
    python evals/calibrate.py run --dtype bfloat16 --out build/calibration
    python evals/calibrate.py table --out build/calibration > evals/CALIBRATION.md

and the same with `--model evals/checkpoints/glm4-moe-lite-tiny` and another folder for latent attention. The faults are
those of the test-only plugin in tests/evals/plugin; `run` does the reference first, in a process where that plugin is
off, then everything else in one engine whose attention is switched from run to run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLUGIN = ROOT / "tests" / "evals" / "plugin"
sys.path[:0] = [str(ROOT), str(PLUGIN)]

from rocmforge_plugin.evaluate import documents, session  # noqa: E402
from rocmforge_plugin.evaluate.records import Run  # noqa: E402

#: What is scored: text says most. The answers of the tasks are all but certain and add hours here, and little evidence.
TASKS = ["rocmforge_text"]
#: Forced tokens of an item; a calibration is some 150 runs.
DECODED = 24
SEEDS = (20, 21, 22, 23, 24)
PHASES = ("prefill", "decode", "both")
#: Faults that are planted in every phase; the others are planted in both at once.
EVERY_PHASE = (
    "scale_2",
    "future_key",
    "own_key_hidden",
    "oldest_key_hidden",
    "page_dropped",
    "fp8_kv",
    "split_average",
    "tail_read",
    "neox_pairs",
    "rotary_all",
)
#: All positions one late is no fault, rotary embedding sees differences only; late in one phase is.
ONE_PHASE = ("rotary_late",)
#: Of pages; latent attention on the CPU reads none in prefill, which makes a prompt's keys and values anew.
OF_PAGES = ("page_dropped", "pages_swapped", "wrong_page", "tail_read")


def plan(size: str, model: str) -> session.Plan:
    """What a calibration run does."""
    return session.Plan(
        model=model,
        tasks=TASKS,
        folder=str(ROOT / "evals" / "tasks"),
        about={"size": size},
        engine={"max_model_len": 2304},
    )


def measure(engine: session.Session, size: str, seed: int, path: Path, order: int | None = None) -> None:
    """One run on the data of `seed`, with the requests in the order of `order`; kept at `path`."""
    if path.exists():
        return
    engine.plan.about = {"size": size, "seed": seed}
    engine.model.order = order
    engine.model.scored.prompts.clear()
    wanted = [
        {**item, "continuation": item["continuation"][:DECODED]}
        for item in documents.forced(size, seed)
        if item["name"] == "text"
    ]
    engine.run(wanted).save(path)
    print(path.name, flush=True)


def reference(args: argparse.Namespace) -> None:
    """vLLM's own backend on every seed, and once more in another order."""
    engine = session.Session(plan(args.size, args.model), "auto", args.dtype, f"reference {args.dtype}")
    for seed in SEEDS[: args.seeds]:
        measure(engine, args.size, seed, args.out / f"reference.{args.dtype}.{seed}.json.gz")
        measure(engine, args.size, seed, args.out / f"clean.{args.dtype}.{seed}.shuffled.json.gz", order=seed)
        if args.dtype == "float32":
            measure(engine, args.size, seed, args.out / f"clean.{args.dtype}.{seed}.reordered.json.gz", order=seed + 1)


def planted(args: argparse.Namespace) -> None:
    """The torch attention: clean variants on every seed, then every fault in every phase on the first."""
    os.environ["ROCMFORGE_BROKEN"] = "none:both"
    engine = session.Session(plan(args.size, args.model), "auto", args.dtype, f"planted {args.dtype}")
    import rocmforge_broken as broken

    if broken.__name__ not in engine.selected():
        raise SystemExit(f"the test plugin is not in use: {engine.selected()}")
    for seed in SEEDS[: args.seeds]:
        for variant in broken.CLEAN:
            broken.state.fault, broken.state.phase = variant, "both"
            measure(engine, args.size, seed, args.out / f"clean.{args.dtype}.{seed}.{variant}.json.gz", order=seed)
    known = [*broken.ATTENTION_FAULTS, *broken.ROTARY_FAULTS]
    latent = engine.backend == "CPU_MLA"
    if latent:
        known = [name for name in (*broken.LATENT_FAULTS, *known) if name not in broken.NOT_LATENT]
    for fault in args.faults or sorted(known, key=lambda name: name not in EVERY_PHASE):
        for phase in phases(fault, latent, broken.LATENT_FAULTS):
            broken.state.fault, broken.state.phase = fault, phase
            measure(engine, args.size, SEEDS[0], args.out / f"fault.{args.dtype}.{fault}.{phase}.json.gz")


def phases(fault: str, latent: bool, of_latents: Sequence[str]) -> Sequence[str]:
    """Where a fault is planted, one after another."""
    if latent and fault in OF_PAGES:
        return ("decode",)
    if fault in EVERY_PHASE:
        return PHASES
    return PHASES[:2] if fault in (*ONE_PHASE, *of_latents) else PHASES[2:]


def run(args: argparse.Namespace) -> None:
    """Reference and planted runs of one dtype, each in a process of its own."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(PLUGIN), str(ROOT), os.environ.get("PYTHONPATH", "")])
    for part, plugins in (("reference", ""), ("planted", "rocmforge_broken")):
        command = [sys.executable, __file__, part, *sys.argv[2:]]
        subprocess.run(command, check=True, env={**os.environ, "VLLM_PLUGINS": plugins, "PYTHONPATH": path})


def table(args: argparse.Namespace) -> None:
    """Markdown of every run under --out with the rule's verdict; runs over several seeds in one line, the worst."""
    from rocmforge_plugin.evaluate import rule

    truth = {seed: Run.load(args.out / f"reference.float32.{seed}.json.gz") for seed in SEEDS[: args.seeds]}
    rows: dict[tuple[str, str, str], list[tuple[list[float | None], bool]]] = {}
    for path in sorted(args.out.glob("*.json.gz")):
        kind, dtype, *rest = path.name.removesuffix(".json.gz").split(".")
        if kind == "reference":
            continue
        seed, name = (int(rest[0]), rest[1]) if kind == "clean" else (SEEDS[0], ", ".join(rest))
        if (name, dtype) == ("rounded_probabilities", "float32"):
            # Rounding to bfloat16 is correct in a bfloat16 engine and a loss of precision in a float32 one.
            kind = "fault"
        base = Run.load(args.out / f"reference.{dtype}.{seed}.json.gz")
        judged = rule.judge(base, Run.load(path), truth[seed] if dtype != "float32" else None, launches=False)
        found = {one.name: one for one in judged.kinds}
        parts = [found["prefill"], found["decode"]]
        figures = [one.mean for one in parts] + [
            one.error / one.floor if one.floor and one.error else None for one in parts
        ]
        rows.setdefault((kind, dtype, name), []).append((figures, judged.same))
    print(
        "| | dtype | difference, prefill | difference, decode "
        "| error / floor, prefill | error / floor, decode | same |\n"
        "|---|---|---|---|---|---|---|"
    )
    for (kind, dtype, name), several in sorted(rows.items()):
        reached = [[value for figures, _ in several if (value := figures[i]) is not None] for i in range(4)]
        worst = [max(values) if values else None for values in reached]
        cells = ["" if value is None else f"{value:.1e}" if i < 2 else f"{value:.2f}" for i, value in enumerate(worst)]
        print(
            f"| {kind}: {name} | {dtype} | {' | '.join(cells)} | {sum(same for _, same in several)} of {len(several)} |"
        )
    clean = [same for (kind, _, _), several in rows.items() if kind == "clean" for _, same in several]
    caught = {name: False for kind, _, name in rows if kind == "fault"}
    for (kind, _, name), several in rows.items():
        if kind == "fault" and not any(same for _, same in several):
            caught[name] = True
    missed = [name for name, noticed in caught.items() if not noticed]
    print(
        f"\n{clean.count(False)} of {len(clean)} clean runs failed. {len(missed)} of {len(caught)} faults "
        f"went unnoticed "
        f"in both dtypes{': ' + '; '.join(missed) if missed else ''}."
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("run", "reference", "planted", "table"))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--size", default="short")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--faults", nargs="*")
    parser.add_argument("--model", default=str(ROOT / "evals" / "checkpoints" / "glm4-tiny"))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "calibration")
    args = parser.parse_args()
    {"run": run, "reference": reference, "planted": planted, "table": table}[args.part](args)


if __name__ == "__main__":
    main()
