# SPDX-License-Identifier: Apache-2.0
"""`rocmforge eval`: arguments, the runs in processes of their own, the report."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rocmforge_plugin import emulation
from rocmforge_plugin.evaluate import documents, report, rule, server
from rocmforge_plugin.evaluate.records import Run
from rocmforge_plugin.evaluate.session import Plan, as_json

LOCAL_GROUP = "rocmforge_local"
DEFAULT_MODEL = "glm4-tiny"
EXIT = {report.SAME: 0, report.DIFFERENT: 1, report.UNDECIDED: 2}
#: Words of the errors that a missing network leaves behind.
OFFLINE = (
    "ConnectionError",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
    "MaxRetryError",
    "ConnectError",
    "Couldn't reach",
    "couldn't connect to",
    "Network is unreachable",
    "Name or service not known",
)
HUB_ADVICE = (
    "The hub could not be reached, so this model or task cannot be fetched. Give a local folder or one already "
    "in the hub's cache, or run `rocmforge eval` with no model and no tasks: it needs no network."
)


class Stopped(Exception):
    """The evaluation could not be done; the message says why and what would work."""


def evals_folder() -> Path | None:
    """The folder with tasks and checkpoints: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).resolve().parent
    return next((path for path in (here.parent.parent / "evals", here / "data") if (path / "tasks").is_dir()), None)


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="rocmforge eval",
        description="Does a model answer through rocmforge as it does through vLLM's own attention backend? Without "
        "arguments: a small trained GLM-4 and local tasks, no network, minutes on 2 cores.",
        epilog="Exit code: 0 the same, 1 different, 2 undecided or not run.",
    )
    made.add_argument(
        "--model",
        help="checkpoint folder, hub name, or name of one in evals/checkpoints (default: the small GLM-4 there)",
    )
    made.add_argument("--tasks", help="lm-eval task names, comma-separated (default: the local tasks)")
    made.add_argument("--include-path", help="folder with further lm-eval task definitions")
    made.add_argument("--candidate", default="rocmforge", help="attention backend to judge (default: %(default)s)")
    made.add_argument("--reference", default="auto", help="backend to compare with (default: by platform)")
    made.add_argument("--dtype", help="comma-separated (default: bfloat16,float32 on CPUs, bfloat16 on GPUs)")
    made.add_argument(
        "--size", choices=tuple(documents.COUNTS), default="short", help="of the local tasks (default: %(default)s)"
    )
    made.add_argument("--limit", type=int, help="at most so many items of each task, for a quick look")
    made.add_argument("--seed", type=int, default=documents.SEED, help="of the local tasks' items")
    made.add_argument(
        "--no-floor", action="store_true", help="skip the float32 reference that 16-bit types are judged by"
    )
    made.add_argument("--num-fewshot", type=int)
    made.add_argument("--apply-chat-template", action="store_true")
    made.add_argument(
        "--engine",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of vLLM's LLM, JSON or text; repeatable (tensor_parallel_size=2)",
    )
    made.add_argument(
        "--candidate-env",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="environment variable of the candidate's process alone; repeatable",
    )
    made.add_argument(
        "--reference-env",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="of the reference's processes alone (VLLM_MLA_DISABLE=1); repeatable",
    )
    made.add_argument("--url", help="candidate: a running `vllm serve`, http://host:port, through local-completions")
    made.add_argument("--reference-url", help="reference: a running `vllm serve` as well")
    made.add_argument(
        "--reuse-reference",
        action="store_true",
        help="take the reference runs that an earlier call with the same settings left in --out",
    )
    made.add_argument(
        "--out", type=Path, default=Path("build/eval"), help="folder of the report (default: %(default)s)"
    )
    return made


def engine_arguments(given: list[str]) -> dict[str, Any]:
    """KEY=VALUE pairs; values are read as JSON where they are JSON."""
    found: dict[str, Any] = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Stopped(f"--engine {pair}: expected KEY=VALUE")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def make_plan(args: argparse.Namespace) -> Plan:
    """What to run. Raises Stopped where a needed folder is missing."""
    folder = evals_folder()
    if folder is None and (not args.model or not args.tasks):
        raise Stopped(
            "the local tasks and the small checkpoint are not installed here; run from a checkout of "
            "rocmforge, or name --model and --tasks"
        )
    local = not args.tasks
    engine = engine_arguments(args.engine)
    if local:
        engine.setdefault("max_model_len", 2304)
    model = args.model or DEFAULT_MODEL
    if folder is not None and not Path(model).is_dir() and (folder / "checkpoints" / model / "config.json").is_file():
        model = str(folder / "checkpoints" / model)
    settings: dict[str, Any] = {}
    if args.num_fewshot is not None:
        settings["num_fewshot"] = args.num_fewshot
    if args.apply_chat_template:
        settings["apply_chat_template"] = True
    tasks = [LOCAL_GROUP] if local else args.tasks.split(",")
    return Plan(
        model=model,
        tasks=tasks,
        folder=str(folder / "tasks") if local else args.include_path,  # type: ignore[operator]
        about={"size": args.size, "seed": args.seed} if local else {},
        limit=args.limit,
        forced=documents.forced(args.size, args.seed) if local else None,
        engine=engine,
        settings=settings,
    )


def without_rocmforge() -> str:
    """Names of every installed vLLM plugin but rocmforge's, for VLLM_PLUGINS: the reference must not see it at all."""
    groups = ("vllm.general_plugins", "vllm.platform_plugins")
    found = {one for group in groups for one in importlib.metadata.entry_points(group=group)}
    if os.environ.get("VLLM_PLUGINS") is not None:
        allowed = set(os.environ["VLLM_PLUGINS"].split(","))
        found = {one for one in found if one.name in allowed}
    return ",".join(sorted({one.name for one in found if not one.value.startswith("rocmforge_plugin")}))


@dataclass
class Jobs:
    """Runs the workers one after another and keeps their results in `folder`."""

    plan: Plan
    folder: Path
    reuse: bool = False

    def run(
        self,
        name: str,
        backend: str,
        dtype: str,
        url: str | None = None,
        forced_from: str | None = None,
        more: dict[str, str] | None = None,
    ) -> Run:
        """One run. Raises Stopped with the worker's last words when it fails."""
        out, log = self.folder / f"{name}.json.gz", self.folder / f"{name}.log"
        label = f"{name.split('.')[0]} {dtype}"
        job = {
            "plan": as_json(self.plan),
            "backend": backend,
            "dtype": dtype,
            "url": url,
            "label": label,
            "out": str(out),
            "forced_from": forced_from,
            "environment": more or {},
        }
        path = self.folder / f"{name}.job.json"
        if (
            self.reuse
            and not name.startswith("candidate")
            and out.exists()
            and path.read_text("utf-8") == json.dumps(job)
        ):
            print(f"{label}: {url or backend}, from the earlier call", flush=True)
            return Run.load(out)
        path.write_text(json.dumps(job), encoding="utf-8")
        environment = {**os.environ, **(more or {})}
        if backend.lower() != "rocmforge" and not url:
            environment["VLLM_PLUGINS"] = without_rocmforge()
        if Path(self.plan.model).is_dir() and self.plan.forced is not None:
            environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        where = url or backend
        print(f"{label}: {where}", flush=True)
        started = time.time()
        command = [sys.executable, "-m", "rocmforge_plugin.evaluate.worker", str(path)]
        with (
            log.open("w", encoding="utf-8") as sink,
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            ) as worker,
        ):
            assert worker.stdout is not None
            for line in worker.stdout:
                sink.write(line)
                if line.startswith("  ") and " requests, " in line:
                    print(line.rstrip(), flush=True)
        if worker.returncode != 0:
            raise Stopped(self.explain(where, log))
        print(f"  done in {time.time() - started:.0f} s", flush=True)
        return Run.load(out)

    @staticmethod
    def explain(where: str, log: Path) -> str:
        """Why a worker failed, from its log."""
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = text.strip().splitlines() or ["no output"]
        errors = [place for place, line in enumerate(lines) if "Error" in line or "error:" in line]
        # Some errors say what they mean on the lines after their name.
        reason = " ".join(line.strip() for line in (lines[errors[-1] : errors[-1] + 3] if errors else lines[-1:]))
        advice = f"\n{HUB_ADVICE}" if any(word in text for word in OFFLINE) else ""
        return f"the run on {where} failed: {reason}{advice}\nThe whole log: {log}"


def default_dtypes(candidate: Mapping[str, str]) -> list[str]:
    """bfloat16, and float32 where the kernels take it; vLLM refuses GLM-4 in float16.

    candidate: environment of its process, which may say that its GPU is emulated.
    """
    import torch

    on_gpu = torch.cuda.is_available() or emulation.target(candidate)
    return ["bfloat16"] if on_gpu else ["bfloat16", "float32"]


def legs(args: argparse.Namespace, jobs: Jobs) -> list[report.Leg]:
    """Reference and candidate in every dtype; the finest dtype first, since its reference is the others' floor."""
    more, theirs = (
        dict(pair.partition("=")[::2] for pair in given) for given in (args.candidate_env, args.reference_env)
    )
    dtypes = args.dtype.split(",") if args.dtype else default_dtypes({**os.environ, **more})
    unknown = [dtype for dtype in dtypes if dtype not in rule.LIMITS]
    if unknown:
        raise Stopped(f"--dtype {','.join(unknown)}: there is no rule for it; known: {', '.join(rule.LIMITS)}")
    if (args.url or args.reference_url) and len(dtypes) > 1:
        raise Stopped("a server runs in one dtype: name it with --dtype")
    for option, url in (("--url", args.url), ("--reference-url", args.reference_url)):
        if url:
            check_server(option, url)
    exact: Run | None = None
    found = []
    if "float32" not in dtypes and not args.no_floor and not args.reference_url:
        try:
            exact = jobs.run("exact.float32", args.reference, "float32", more=theirs)
        except Stopped as stop:
            print(f"  no float32 reference, so 16-bit types are judged by fixed limits alone: {stop}", flush=True)
    for dtype in sorted(dtypes, key=lambda name: name != "float32"):
        reference = jobs.run(f"reference.{dtype}", args.reference, dtype, args.reference_url, more=theirs)
        exact = reference if dtype == "float32" else exact
        forced_from = str(jobs.folder / f"reference.{dtype}.json.gz")
        candidate = jobs.run(f"candidate.{dtype}", args.candidate, dtype, args.url, forced_from, more)
        judged = rule.judge(reference, candidate, exact if dtype != "float32" else None)
        judged.undecided += candidate.about.get("notes", [])
        found.append(report.Leg(reference, candidate, judged))
    return found


def check_server(option: str, url: str) -> None:
    """Raises Stopped when no `vllm serve` answers at `url`: said now, not after minutes of the other backend's run."""
    try:
        server.served_model(url)
    except server.ServerError as error:
        raise Stopped(f"{option} {url}: {error}") from error


def check_tools() -> None:
    """Raises Stopped when what the evaluation runs on is not installed."""
    for module, name in (("lm_eval", "lm-eval[api]"), ("vllm", "vllm")):
        if importlib.util.find_spec(module) is None:
            raise Stopped(f"`rocmforge eval` needs {name}: pip install '{name}' (without touching your vLLM and torch)")


def main(argv: list[str] | None = None) -> int:
    """The command; see `parser` for its arguments and exit codes."""
    args = parser().parse_args(argv)
    try:
        check_tools()
        plan = make_plan(args)
        folder = args.out / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        done = legs(args, Jobs(plan, folder, args.reuse_reference))
    except Stopped as stop:
        print(f"rocmforge eval: {stop}", file=sys.stderr)
        return EXIT[report.UNDECIDED]
    print(report.as_text(done))
    print("\n" + "\n".join(str(path) for path in report.write(done, args.out)))
    return EXIT[report.verdict(done)]


if __name__ == "__main__":
    sys.exit(main())
