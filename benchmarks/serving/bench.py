# SPDX-License-Identifier: Apache-2.0
"""`vllm serve` with `vllm bench serve` against it, then `vllm bench throughput`, for the section `bench`.

Each backend is a task: its server starts beside the others', waits for its turn, is asked by one client after another,
ends, and the throughput benchmark's own engine follows. Both have the same settings, and so one compile cache.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import sameness
from .pool import Task, run_gated

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "evals" / "checkpoints" / "glm4-tiny"  # of models that come without one
VLLM = (sys.executable, "-m", "vllm.entrypoints.cli.main")  # there may be no `vllm` command
# Requests in flight, requests in all, and those before the clock, for each client; then `vllm bench throughput`'s.
SIZES = {"clients": [[1, 8, 1], [128, 256, 16]], "input": 512, "output": 128, "prompts": 256, "warmups": 16}
SMOKE_SIZES = {"clients": [[1, 2, 1], [4, 8, 1]], "input": 48, "output": 8, "prompts": 8, "warmups": 1}
# GLM-4-9B's shape but small, with all of its token numbers, most of which the tokenizer does not know.
SMOKE_SHAPE = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 8}
REQUIRED = ("attention_prefill", "attention_decode", "kv_write", "rotary")  # in names of kernels that must have run
STOP_SECONDS, CHILDREN_SECONDS, READY_SECONDS = 20, 5, 600
Save = Callable[[dict[str, Any]], None]


def free_port() -> int:
    """One that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def stop(process: subprocess.Popen) -> None:
    """End a server and what it started, whether it wants to or not."""
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in psutil.wait_procs(children, CHILDREN_SECONDS)[1]:
        child.kill()


def wait_until_ready(process: subprocess.Popen, url: str) -> None:
    """Until the server answers; RuntimeError if it ends before, or does not come."""
    late = time.monotonic() + READY_SECONDS
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            if time.monotonic() > late:
                raise RuntimeError(f"the server did not answer in {READY_SECONDS} s") from error
            time.sleep(0.2)


@contextmanager
def server(spec: dict[str, Any]) -> Iterator[str]:
    """A running `vllm serve` and its address; its output goes where this process's does."""
    port = free_port()
    command = [*VLLM, "serve", spec["model"], "--port", str(port), *spec["engine"]]
    if spec["backend"] == "rocmforge":
        command += [
            "--worker-extension-cls",
            "rocmforge_plugin.vllm.report.LaunchCounts",
            "--middleware",
            "rocmforge_plugin.vllm.report.LaunchReport",
        ]
    print("$", *command[1:], flush=True)
    process = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(process, url)
        yield url
    finally:
        stop(process)


def checked(result: dict[str, Any], requests: int, tokens: int) -> dict[str, Any]:
    """A client's result; RuntimeError if not every request was answered at full length."""
    if result["completed"] != requests or result["total_output_tokens"] != tokens:
        raise RuntimeError(
            f"{result['completed']} of {requests} requests were answered, with "
            f"{result['total_output_tokens']} of {tokens} tokens"
        )
    return result


def client(spec: dict[str, Any], url: str, concurrency: int, requests: int, warmups: int) -> dict[str, Any]:
    """What `vllm bench serve` says of `requests` requests, `concurrency` at once."""
    sizes, at = spec["sizes"], pathlib.Path(spec["result"]).with_suffix(f".client{concurrency}")
    command = [
        *VLLM,
        "bench",
        "serve",
        "--backend",
        "openai",
        "--base-url",
        url,
        "--endpoint",
        "/v1/completions",
        "--model",
        spec["model"],
        "--tokenizer",
        spec["tokenizer"],
        "--dataset-name",
        "random",
        "--random-input-len",
        str(sizes["input"]),
        "--random-output-len",
        str(sizes["output"]),
        "--num-prompts",
        str(requests),
        "--num-warmups",
        str(warmups),
        "--request-rate",
        "inf",
        "--max-concurrency",
        str(concurrency),
        "--ignore-eos",
        "--temperature",
        "0",
        "--seed",
        "0",
        "--disable-tqdm",
        "--save-result",
        "--result-dir",
        str(at.parent),
        "--result-filename",
        at.name,
    ]
    print("$", *command[1:], flush=True)
    subprocess.run(command, check=True)
    return checked(json.loads(at.read_text()), requests, requests * sizes["output"])


def throughput(spec: dict[str, Any]) -> dict[str, Any]:
    """What `vllm bench throughput` says."""
    sizes, at = spec["sizes"], pathlib.Path(spec["result"]).with_suffix(".throughput")
    command = [
        *VLLM,
        "bench",
        "throughput",
        "--model",
        spec["model"],
        "--dataset-name",
        "random",
        "--random-input-len",
        str(sizes["input"]),
        "--random-output-len",
        str(sizes["output"]),
        "--num-prompts",
        str(sizes["prompts"]),
        "--num-warmups",
        str(sizes["warmups"]),
        "--output-json",
        str(at),
        *spec["engine"],
    ]
    print("$", *command[1:], flush=True)
    subprocess.run(command, check=True)
    result = json.loads(at.read_text())
    if result["num_requests"] != sizes["prompts"]:
        raise RuntimeError(f"{result['num_requests']} of {sizes['prompts']} requests were measured")
    return result


def bench(spec: dict[str, Any], save: Save, wait_for_turn: Callable[[dict[str, Any]], None]) -> None:
    """The task of one backend: `measures` as in the section `throughput`, and the rocmforge kernels that ran."""
    measures: dict[str, float] = {}
    result: dict[str, Any] = {"measures": measures, "launches": {}}
    with server(spec) as url:
        wait_for_turn(spec)
        for concurrency, requests, warmups in spec["sizes"]["clients"]:
            found = client(spec, url, concurrency, requests, warmups)
            name = f"concurrency{concurrency}"
            measures[f"ttft_{name}_ms"] = found["median_ttft_ms"]
            measures[f"tpot_{name}_ms"] = found["median_tpot_ms"]
            measures[f"output_tokens_s_{name}"] = found["output_throughput"]
            save(result)
        if spec["backend"] == "rocmforge":
            with urllib.request.urlopen(f"{url}/rocmforge/launches", timeout=60) as reply:
                result["launches"] = {name: n for name, n in json.load(reply)["total"].items() if n}
            save(result)
    if spec["sizes"]["prompts"]:
        found = throughput(spec)
        measures["throughput_requests_s"] = found["requests_per_second"]
        measures["throughput_tokens_s"] = found["tokens_per_second"]  # of prompts and answers
    save(result | {"done": True})


def engine_arguments(run: Any, model: str, tokenizer: str, backend: str, smoke: bool) -> list[str]:
    """Of both `vllm serve` and `vllm bench throughput`."""
    weights = any(pathlib.Path(model).glob("*.safetensors"))
    arguments = [
        "--attention-backend",
        backend,
        "--tokenizer",
        tokenizer,
        "--dtype",
        "bfloat16",
        "--seed",
        "0",
        "--load-format",
        "auto" if weights else "dummy",
        "--no-enable-prefix-caching",
    ]
    if not run.gpu:
        return [*arguments, "--max-model-len", "512", "--max-num-seqs", "16", "--enforce-eager"]
    graphs = {"cudagraph_mode": "FULL_AND_PIECEWISE", "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128, 256]}
    return [
        *arguments,
        "--max-model-len",
        "512" if smoke else "8192",
        "--max-num-batched-tokens",
        "8192",
        "--max-num-seqs",
        "256",
        "--gpu-memory-utilization",
        "0.2",
        "--kv-cache-memory-bytes",
        str(12 << 30),
        "--compilation-config",
        json.dumps(graphs),
    ]


def section(run: Any, model: str, backends: list[str], smoke: bool) -> None:
    """The section: all backends' tasks, then the table."""
    tokenizer = model if (pathlib.Path(model) / "tokenizer.json").exists() else str(TOKENIZER)
    tasks = []
    for backend in backends:
        spec = {
            "task": "bench",
            "model": model,
            "tokenizer": tokenizer,
            "backend": backend,
            "engine": engine_arguments(run, model, tokenizer, backend, smoke),
            "sizes": SMOKE_SIZES if smoke else SIZES,
            "measure_limit": 240,
        }
        task = run.task(f"{backend} served", spec, 300, gated=True, threads=4 if run.gpu else 1)
        task.env |= {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"} | (
            {} if run.gpu else {"VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")}
        )
        tasks.append(task)
    rows: dict[str, dict[str, float]] = {}

    def done(task: Task) -> None:
        backend = task.spec["backend"]
        result = run.keep("bench", task, backend)
        if run.out:
            kept = pathlib.Path(run.out).with_suffix(f".{backend}.log")
            shutil.copyfile(task.log, kept)
            print(f"  log: {kept}")
        measured = run.results["bench"][backend].get("measures")
        if measured:
            rows[backend] = measured
        if result is not None and backend == "rocmforge":
            print(f"  launches at capture and outside graphs: {result['launches']}")
            for part in REQUIRED:
                if not any(part in name for name in result["launches"]):
                    run.fail(f"bench: no {part} kernel ran")

    run_gated(run.chosen(tasks), 240 if run.gpu else READY_SECONDS, run.deadline, done)
    sizes = SMOKE_SIZES if smoke else SIZES
    print(
        f"\nvllm bench serve and throughput, {pathlib.Path(model).name}, {sizes['input']} tokens in, "
        f"{sizes['output']} out (in brackets: rocmforge is faster by)"
    )
    for line in sameness.ratio_lines(rows):
        print("  " + line)
    run.save()
