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
from .worker import KINDS, write

SECTIONS = ("parity", "features", "throughput", "profile")
NAMED_SECTIONS = ("bench",)  # that take too long to be run unasked
FEATURES: dict[str, tuple[dict[str, Any], str | None]] = {  # settings, and the counter that shows that it happened
    "chunked": ({"max_num_batched_tokens": 64, "max_num_seqs": 32}, None),
    "prefix": ({"enable_prefix_caching": True}, "prefix_cache_hits"),
    "ngram": ({"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4,
                                      "prompt_lookup_min": 2}}, "spec_decode_num_accepted_tokens"),
    "draft": ({"speculative_config": {"method": "draft_model", "num_speculative_tokens": 3}},
              "spec_decode_num_accepted_tokens"),
    "preemption": ({"num_gpu_blocks_override": 60}, "num_preemptions"),
}
SIZES = {"batches": [64, 256], "input": 512, "output": 128, "long": 4096, "tpot_batches": [1, 32]}
SMALL_MODEL = str(pathlib.Path(__file__).resolve().parents[2] / "evals" / "checkpoints" / "glm4-tiny")
CPU_SIZES = {"batches": [1, 8], "input": 64, "output": 128, "long": 1000, "tpot_batches": [1]}
CPU_LEAST, CPU_MOST_MS = 20.0, 10e3
PROFILE_SIZES = {"batch": 32, "input": 512, "timed_steps": 20, "steps": 5}
GIB = 1 << 30


class Run:
    """The command's state: where files go, what has been found, and when it must end."""

    def __init__(self, arguments: argparse.Namespace, folder: pathlib.Path, gpu: bool) -> None:
        self.out, self.folder, self.gpu, self.width = arguments.out, folder, gpu, arguments.width
        self.only = arguments.only
        self.deadline = time.monotonic() + arguments.budget
        self.references = ("TRITON_ATTN", "FLASH_ATTN") if gpu else ("CPU_ATTN",)
        self.results: dict[str, Any] = {}
        self.wrong: list[str] = []
        self.models: dict[str, str] = {}

    def chosen(self, tasks: Sequence[Task]) -> list[Task]:
        return [t for t in tasks if not self.only or any(part in t.name for part in self.only)]

    def save(self) -> None:
        if self.out:
            write(pathlib.Path(self.out), self.results | {"failed": self.wrong})

    def fail(self, text: str) -> None:
        self.wrong.append(text)
        print(f"FAILED {text}", flush=True)

    def keep(self, section: str, task: Task, name: str | None = None) -> dict[str, Any] | None:
        """Store a task's result, by its name or another; None if it did not come to its end."""
        result = task.result()
        self.results.setdefault(section, {})[name or task.name] = result | {"seconds": task.took}
        if "failed" in result:
            self.fail(f"{section} {task.name}: {result['failed']}")
        else:
            print(f"[{section}] {task.name}: {task.took:.0f} s", flush=True)
        self.save()
        return None if "failed" in result else result

    def task(self, name: str, spec: dict[str, Any], limit: float, gated: bool = False, position: bool = True,
             threads: int = 2) -> Task:
        """A task with the environment of its backend: the references' processes load no plugin."""
        env: dict[str, str | None] = {"OMP_NUM_THREADS": str(threads), "TORCHINDUCTOR_COMPILE_THREADS": str(threads)}
        if spec["task"] in ("text", "profile"):
            env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # launches are counted, and profiled, where the kernels run
        ours = spec.get("backend") == "rocmforge"
        env["ROCMFORGE_POSITION"] = "1" if ours and position else "0"
        if spec["task"] != "prepare" and not ours:
            env["VLLM_PLUGINS"] = ""
        # Engines that start together must not write one compile cache; what vLLM knows of model classes they may share.
        shared, own = self.folder / "modelinfos", self.folder / "cache" / name.replace(" ", "_")
        shared.mkdir(exist_ok=True)
        own.mkdir(parents=True, exist_ok=True)
        if not (own / shared.name).exists():
            (own / shared.name).symlink_to(shared)
        env["VLLM_CACHE_ROOT"] = str(own)
        return Task(name, spec, self.folder, env, limit, gated)

    def text_settings(self) -> dict[str, Any]:
        """Of a small engine, several of which share the GPU."""
        settings: dict[str, Any] = {"max_model_len": 640, "max_num_batched_tokens": 1024, "max_num_seqs": 32,
                                    "disable_log_stats": False, "enable_prefix_caching": False,
                                    "block_size": 16 if self.gpu else 32}
        if self.gpu:
            return settings | {"kv_cache_memory_bytes": GIB, "gpu_memory_utilization": 0.04, "compilation_config": {
                "cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128]}}
        return settings | {"kv_cache_memory_bytes": GIB // 16, "enforce_eager": True,
                           "distributed_executor_backend": "uni"}


def prepare(run: Run, kinds: Sequence[str], shape: dict[str, int]) -> bool:
    def done(task: Task) -> None:
        saved = task.result()
        run.models = saved.get("checkpoints", {})
        if not run.models:
            run.fail(f"prepare: {saved['failed']}")

    spec = {"task": "prepare", "folder": str(run.folder), "kinds": list(kinds), "shape": shape}
    run_pool([run.task("prepare", spec, 120)], 1, run.deadline, done)
    return bool(run.models)


def text_sections(run: Run, sections: Sequence[str]) -> None:
    """parity and features, through one pool of processes."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    labels: dict[str, tuple[str, str, str]] = {}
    tasks = []

    def add(section: str, feature: str, kind: str, backend: str, changes: dict[str, Any]) -> None:
        name = f"{kind} {backend}" if section == "parity" else f"{feature} {backend}"
        settings = run.text_settings() | changes
        if "num_gpu_blocks_override" in changes and not run.gpu:
            settings["num_gpu_blocks_override"] //= 2  # of twice the tokens
        if feature == "draft":
            settings["speculative_config"] = settings["speculative_config"] | {
                "model": run.models[kind], "attention_backend": backend}  # else vLLM chooses the draft model's itself
        labels[name] = (section, feature if section == "features" else kind, backend)
        tasks.append(run.task(name, {"task": "text", "feature": feature, "model": run.models[kind], "backend": backend,
                                     "settings": settings}, 170 if run.gpu else 600))

    if "parity" in sections:
        for kind in KINDS:
            for backend in ("rocmforge", *run.references):
                add("parity", "parity", kind, backend, {})
    if "features" in sections:
        for feature, (changes, _) in FEATURES.items():
            for backend in ("rocmforge", run.references[0]):
                add("features", feature, "glm4", backend, changes)

    def done(task: Task) -> None:
        section, what, backend = labels[task.name]
        result = run.keep(section, task)
        if result is None:
            return
        groups.setdefault(f"{section} {what}", {})[backend] = result

    run_pool(run.chosen(tasks), run.width, run.deadline, done)
    for group, backends in groups.items():
        compare(run, group, backends)
    run.save()


def compare(run: Run, group: str, backends: dict[str, dict[str, Any]]) -> None:
    """Print and judge one checkpoint's or feature's runs."""
    print(f"\n{group}")
    errors = {name: sameness.errors_of(one) for name, one in backends.items()}
    report: dict[str, Any] = {"errors": errors, "agreement": {}}
    run.results.setdefault("comparisons", {})[group] = report
    for name, found in errors.items():
        parts = "  ".join(f"{kind}: {v['tokens']:.0f} tokens, mean {v['mean']:.2e}, largest {v['largest']:.2e}"
                          for kind, v in found.items() if v["tokens"])
        print(f"  {name:12} error from fp32  {parts}")
    first = next(name for name in (*run.references, "rocmforge") if name in backends)
    report["agreement"] = {f"{name} and {first}": sameness.agreement(one, backends[first])
                           for name, one in backends.items() if name != first}
    for pair, a in report["agreement"].items():
        print(f"  {pair}: {a['equal_texts']} of {a['texts']} texts equal, {a['equal_tokens']} of {a['tokens']} tokens "
              f"before the first other one, where the two lie {a['largest_gap_at_parting']:.2e} apart at most; log "
              f"probabilities until then differ by {a['mean_difference']:.2e}, at most {a['largest_difference']:.2e}")
    ours = backends.get("rocmforge")
    if ours is None:
        return
    counter = FEATURES.get(group.split()[1], ({}, None))[1]
    for name, one in backends.items():
        if counter:
            print(f"  {name:12} {counter} {one['counters'].get(counter, 0):.0f}")
            if not one["counters"].get(counter):
                run.fail(f"{group} {name}: {counter} is 0, so the feature was not exercised")
        if name != "rocmforge" and one["launches"]:
            run.fail(f"{group} {name}: rocmforge's kernels ran in the reference")
    counts = ours["launches"]
    print(f"  launches: {counts}\n  of these, while the engine started (in a graph they count when it is captured): "
          f"{ours['at_start']}")
    for part in ("attention_plan", "attention_prefill", "attention_decode", "kv_write", "rotary"):
        if not any(part in name for name in counts):
            run.fail(f"{group}: no {part} kernel ran")
    report["wrong"] = sameness.verdict(errors["rocmforge"], [e for n, e in errors.items() if n != "rocmforge"])
    for text in report["wrong"]:
        run.fail(f"{group}: {text}")
    if not report["wrong"]:
        print("  same within rounding")


def large_settings(batch: int, memory: int) -> dict[str, Any]:
    """Of a GLM-4-9B engine whose graphs cover `batch` sequences."""
    return {"load_format": "dummy", "max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": batch,
            "enable_prefix_caching": False, "gpu_memory_utilization": 0.2, "kv_cache_memory_bytes": memory,
            "compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes":
                                   [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256) if n <= batch]}}


def small_settings() -> dict[str, Any]:
    """Of an engine of SMALL_MODEL on the CPU."""
    return {"max_model_len": 2304, "max_num_seqs": 8, "block_size": 32, "enable_prefix_caching": False,
            "kv_cache_memory_bytes": GIB // 4}


def throughput(run: Run) -> None:
    """Engines start together and measure one after another."""
    model, sizes = (run.models["glm4_9b"], SIZES) if run.gpu else (SMALL_MODEL, CPU_SIZES)
    tasks = []
    for backend in ("rocmforge", *run.references):
        settings = large_settings(256, 12 * GIB) if run.gpu else small_settings()
        if backend == "rocmforge":
            settings["worker_extension_cls"] = "rocmforge_plugin.vllm.report.LaunchCounts"
        tasks.append(run.task(backend, {"task": "throughput", "model": model, "backend": backend,
                                        "settings": settings, "sizes": sizes, "measure_limit": 90}, 240, gated=True,
                              threads=4 if run.gpu else os.cpu_count() or 1))
    rows: dict[str, dict[str, float]] = {}

    def done(task: Task) -> None:
        result = run.keep("throughput", task)
        partial = run.results["throughput"][task.name].get("measures")
        if partial:
            rows[task.name] = partial
        if result is not None and task.name == "rocmforge":
            print(f"  launches at capture and outside graphs: {result['launches']}")

    run_gated(run.chosen(tasks), 180, run.deadline, done)
    print(f"\nthroughput, {'GLM-4-9B, dummy weights' if run.gpu else model}, {sizes['input']} tokens in, "
          f"{sizes['output']} out, long prompt {sizes['long']} (in brackets: rocmforge is faster by)")
    for line in sameness.ratio_lines(rows):
        print("  " + line)
    ours = rows.get("rocmforge", {})
    measured = {"tokens_s_batch1", "ttft_long_prompt_ms"} <= ours.keys()  # else its failure is known already
    if not run.gpu and measured and (ours["tokens_s_batch1"] < CPU_LEAST or ours["ttft_long_prompt_ms"] > CPU_MOST_MS):
        run.fail(f"throughput: on the CPU one client must get {CPU_LEAST:.0f} tokens/s, and the first behind a prompt "
                 f"of {sizes['long']} within {CPU_MOST_MS:.0f} ms")
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
            tasks.append(run.task(name, {"task": "profile", "model": run.models["glm4_9b"], "backend": "rocmforge",
                                         "settings": settings, "sizes": PROFILE_SIZES, "measure_limit": 60}, 200,
                                  gated=True, position=position, threads=3))

    def done(task: Task) -> None:
        result = run.keep("profile", task)
        if result is None:
            return
        print(f"  a decode step of {PROFILE_SIZES['batch']} requests: {result['kernels_per_step']:.1f} kernels "
              f"({result['kernels_per_step'] / result['layers']:.2f} a layer), {result['gpu_us_per_step']:.0f} us on "
              f"the GPU, {result['own_us_per_step']:.0f} of them rocmforge's, {result['step_us']:.0f} us by the clock; "
              f"{result['copies_per_step']:.1f} copies and {result['memsets_per_step']:.1f} memsets, all of the step's")
        print(f"  copies, memsets, waits, allocations by attention's host code: {result['inside_attention'] or 'none'} "
              f"({result['ranges_per_step']:.0f} ranges a step); copies or memsets beside its kernels in a graph: "
              f"{result['beside_attention'] or 'none'}")
        for which in ("own", "others"):
            for kernel, row in result[which].items():
                print(f"    {row['per_step']:7.1f} x {row['us_each']:8.2f} us = {row['us_per_step']:9.1f} us  "
                      f"{kernel[:76]}")
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
            print(f"{mode}: position layer on {on['kernels_per_step']:.1f} kernels a step, off "
                  f"{off['kernels_per_step']:.1f}; GPU {on['gpu_us_per_step']:.0f} and "
                  f"{off['gpu_us_per_step']:.0f} us; clock {on['step_us']:.0f} and {off['step_us']:.0f} us")


def main() -> int:
    """Run the sections that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", default=",".join(SECTIONS))
    parser.add_argument("--out", help="JSON file, written after every engine")
    parser.add_argument("--budget", type=float, default=470.0, help="seconds after which what still runs is ended")
    parser.add_argument("--width", type=int, default=max(1, min(10, (os.cpu_count() or 1) * 5 // 8)),
                        help="small engines at once")
    parser.add_argument("--only", nargs="*", default=[], metavar="PART",
                        help="only engines with one of these in the name")
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
                bench.section(run, arguments.model or run.models["glm4_9b"],
                                      arguments.backends or ["rocmforge", *run.references], arguments.smoke)
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
