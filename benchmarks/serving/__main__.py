# SPDX-License-Identifier: Apache-2.0
"""vLLM end to end through rocmforge and through vLLM's own attention backends, side by side.

    python -m benchmarks.serving [--sections parity,features,throughput,profile,bench] [--out serving.json]

parity      greedy texts and log probabilities of seeded GLM-4, GLM-4-MoE and Llama checkpoints (bf16, torch.compile,
            FULL_AND_PIECEWISE graphs): each backend's error from the fp32 model, which must be of one size
features    the same for chunked prefill, cached prefixes, drafts by n-gram and by a model, and preemption
throughput  GLM-4-9B with dummy weights: tokens/s, time to first token, time per token; on the CPU the small trained
            GLM-4 of evals/, of which one client must get CPU_LEAST tokens/s and its first token within CPU_MOST_MS
profile     decode steps of that model under torch's profiler, eager and in graphs, with the position layer on and off
bench       `vllm serve` of that model asked by `vllm bench serve`, and `vllm bench throughput`; only if it is named

Every engine has its own process, which runs stock vLLM (no plugin) for the other backends. On a machine without a GPU
the first three sections and `bench --smoke` run against CPU_ATTN, without graphs. The exit status is 1 if a comparison
failed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from . import bench, sameness
from .pool import Task, run_gated, run_pool
from .state import GIB, Run
from .texts import text_sections
from .worker import KINDS

SECTIONS = ("parity", "features", "throughput", "profile")
NAMED_SECTIONS = ("bench",)  # that take too long to be run unasked
SIZES = {"batches": [64, 256], "input": 512, "output": 128, "long": 4096, "tpot_batches": [1, 32]}
SMALL_MODEL = str(pathlib.Path(__file__).resolve().parents[2] / "evals" / "checkpoints" / "glm4-tiny")
CPU_SIZES = {"batches": [1, 8], "input": 64, "output": 128, "long": 1000, "tpot_batches": [1]}
CPU_LEAST, CPU_MOST_MS = 20.0, 10e3
PROFILE_SIZES = {"batch": 32, "input": 512, "timed_steps": 20, "steps": 5}


def prepare(run: Run, kinds: Sequence[str], shape: dict[str, int]) -> bool:
    def done(task: Task) -> None:
        saved = task.result()
        run.models = saved.get("checkpoints", {})
        if not run.models:
            run.fail(f"prepare: {saved['failed']}")

    spec = {"task": "prepare", "folder": str(run.folder), "kinds": list(kinds), "shape": shape}
    run_pool([run.task("prepare", spec, 120)], 1, run.deadline, done)
    return bool(run.models)


def large_settings(batch: int, memory: int) -> dict[str, Any]:
    """Of a GLM-4-9B engine whose graphs cover `batch` sequences."""
    return {
        "load_format": "dummy",
        "max_model_len": 8192,
        "max_num_batched_tokens": 8192,
        "max_num_seqs": batch,
        "enable_prefix_caching": False,
        "gpu_memory_utilization": 0.2,
        "kv_cache_memory_bytes": memory,
        "compilation_config": {
            "cudagraph_mode": "FULL_AND_PIECEWISE",
            "cudagraph_capture_sizes": [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= batch],
        },
    }


def small_settings() -> dict[str, Any]:
    """Of an engine of SMALL_MODEL on the CPU."""
    return {
        "max_model_len": 2304,
        "max_num_seqs": 8,
        "block_size": 32,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": GIB // 4,
    }


def throughput(run: Run) -> None:
    """Engines start together and measure one after another."""
    model, sizes = (run.models["glm4_9b"], SIZES) if run.gpu else (SMALL_MODEL, CPU_SIZES)
    tasks = []
    for backend in ("rocmforge", *run.references):
        settings = large_settings(256, 12 * GIB) if run.gpu else small_settings()
        if backend == "rocmforge":
            settings["worker_extension_cls"] = "rocmforge_plugin.vllm.report.LaunchCounts"
        tasks.append(
            run.task(
                backend,
                {
                    "task": "throughput",
                    "model": model,
                    "backend": backend,
                    "settings": settings,
                    "sizes": sizes,
                    "measure_limit": 90,
                },
                240,
                gated=True,
                threads=4 if run.gpu else os.cpu_count() or 1,
            )
        )
    rows: dict[str, dict[str, float]] = {}

    def done(task: Task) -> None:
        result = run.keep("throughput", task)
        partial = run.results["throughput"][task.name].get("measures")
        if partial:
            rows[task.name] = partial
        if result is not None and task.name == "rocmforge":
            print(f"  launches at capture and outside graphs: {result['launches']}")

    run_gated(run.chosen(tasks), 180, run.deadline, done)
    print(
        f"\nthroughput, {'GLM-4-9B, dummy weights' if run.gpu else model}, {sizes['input']} tokens in, "
        f"{sizes['output']} out, long prompt {sizes['long']} (in brackets: rocmforge is faster by)"
    )
    for line in sameness.ratio_lines(rows):
        print("  " + line)
    ours = rows.get("rocmforge", {})
    measured = {"tokens_s_batch1", "ttft_long_prompt_ms"} <= ours.keys()  # else its failure is known already
    if not run.gpu and measured and (ours["tokens_s_batch1"] < CPU_LEAST or ours["ttft_long_prompt_ms"] > CPU_MOST_MS):
        run.fail(
            f"throughput: on the CPU one client must get {CPU_LEAST:.0f} tokens/s, and the first behind a prompt "
            f"of {sizes['long']} within {CPU_MOST_MS:.0f} ms"
        )
    run.save()


def profile(run: Run) -> None:
    """The position layer's fused launch on and off, eager and in graphs."""
    tasks = []
    for eager in (True, False):
        for position in (True, False):
            settings = large_settings(32, 2 * GIB) | {"async_scheduling": False}
            if eager:
                settings = {k: v for k, v in settings.items() if k != "compilation_config"} | {"enforce_eager": True}
            name = f"{'eager' if eager else 'graphs'} fused {'on' if position else 'off'}"
            tasks.append(
                run.task(
                    name,
                    {
                        "task": "profile",
                        "model": run.models["glm4_9b"],
                        "backend": "rocmforge",
                        "settings": settings,
                        "sizes": PROFILE_SIZES,
                        "measure_limit": 60,
                    },
                    200,
                    gated=True,
                    position=position,
                    threads=3,
                )
            )

    def done(task: Task) -> None:
        result = run.keep("profile", task)
        if result is None:
            return
        print(
            f"  a decode step of {PROFILE_SIZES['batch']} requests: {result['kernels_per_step']:.1f} kernels "
            f"({result['kernels_per_step'] / result['layers']:.2f} a layer), {result['gpu_us_per_step']:.0f} us on "
            f"the GPU, {result['own_us_per_step']:.0f} of them rocmforge's, {result['step_us']:.0f} us by the clock; "
            f"{result['copies_per_step']:.1f} copies and {result['memsets_per_step']:.1f} memsets, all of the step's"
        )
        print(
            f"  copies, memsets, waits, allocations by attention's host code: {result['inside_attention'] or 'none'} "
            f"({result['ranges_per_step']:.0f} ranges a step); copies or memsets beside its kernels in a graph: "
            f"{result['beside_attention'] or 'none'}"
        )
        for which in ("own", "others"):
            for kernel, row in result[which].items():
                print(
                    f"    {row['per_step']:7.1f} x {row['us_each']:8.2f} us = {row['us_per_step']:9.1f} us  "
                    f"{kernel[:76]}"
                )
        if not result["own"] or not result["ranges_per_step"]:
            run.fail(f"profile {task.name}: the trace shows no kernel or no host range of rocmforge's")
        if task.name.startswith("eager") and not result["calls_inside_attention"]:
            run.fail(f"profile {task.name}: no launch was seen inside attention's host code, so nothing else would be")
        # A memset node there may be the matrix product's that follows; that the ops capture none is a test's matter.
        if result["inside_attention"] or result["beside_attention"].get("gpu_memcpy"):
            run.fail(f"profile {task.name}: attention copies, waits or allocates")

    run_gated(run.chosen(tasks), 150, run.deadline, done)
    steps = {name: one for name, one in run.results.get("profile", {}).items() if "kernels_per_step" in one}
    for mode in ("eager", "graphs"):
        if {f"{mode} fused on", f"{mode} fused off"} <= steps.keys():
            on, off = steps[f"{mode} fused on"], steps[f"{mode} fused off"]
            print(
                f"{mode}: position layer on {on['kernels_per_step']:.1f} kernels a step, off "
                f"{off['kernels_per_step']:.1f}; GPU {on['gpu_us_per_step']:.0f} and "
                f"{off['gpu_us_per_step']:.0f} us; clock {on['step_us']:.0f} and {off['step_us']:.0f} us"
            )


def main() -> int:
    """Run the sections that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--out", help="JSON file, written after every engine")
    parser.add_argument("--budget", type=float, default=470.0, help="seconds after which what still runs is ended")
    parser.add_argument(
        "--width", type=int, default=max(1, min(10, (os.cpu_count() or 1) * 5 // 8)), help="small engines at once"
    )
    parser.add_argument(
        "--only", nargs="*", default=[], metavar="PART", help="only engines with one of these in the name"
    )
    parser.add_argument("--backends", type=lambda text: text.split(","), metavar="A,B", help="of the section bench")
    parser.add_argument("--model", help="of the section bench: a folder or a hub name instead of GLM-4-9B's shape")
    parser.add_argument("--smoke", action="store_true", help="few and short requests, of a small model")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    arguments = parser.parse_args()
    sections = arguments.sections.split(",")
    if unknown := set(sections) - {*SECTIONS, *NAMED_SECTIONS}:
        parser.error(f"unknown sections {sorted(unknown)}; there are {', '.join((*SECTIONS, *NAMED_SECTIONS))}")
    gpu = arguments.device == "cuda" or (arguments.device == "auto" and has_gpu())
    if not gpu and "profile" in sections:
        print("profile needs a GPU and is left out")
    if not gpu and "bench" in sections and not arguments.smoke:
        parser.error("the section bench needs a GPU, or --smoke")
    with tempfile.TemporaryDirectory(prefix="rocmforge-serving-") as folder:
        run = Run(arguments, pathlib.Path(folder), gpu)
        start = time.monotonic()
        texts = set(sections) & {"parity", "features"}
        if prepare(run, KINDS if texts else (), bench.SMOKE_SHAPE if arguments.smoke else {}):
            if texts:
                text_sections(run, [section for section in sections if section in texts])
            if "throughput" in sections:
                throughput(run)
            if gpu and "profile" in sections:
                profile(run)
            if "bench" in sections:
                bench.section(
                    run,
                    arguments.model or run.models["glm4_9b"],
                    arguments.backends or ["rocmforge", *run.references],
                    arguments.smoke,
                )
        run.save()
        print(f"\n{time.monotonic() - start:.0f} s; " + (f"{len(run.wrong)} failures:" if run.wrong else "all passed"))
        for text in run.wrong:
            print("  " + text.splitlines()[0])
    return 1 if run.wrong else 0


def has_gpu() -> bool:
    """Whether torch sees one."""
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    sys.exit(main())
