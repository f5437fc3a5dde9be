# SPDX-License-Identifier: Apache-2.0
"""benchmarks/serving without engines: its rule for sameness, its reading of traces, its processes, its server."""

from __future__ import annotations

import pathlib
import random
import sys
import time
from typing import Any

import pytest

from benchmarks.serving import bench, pool
from benchmarks.serving.sameness import agreement, errors_of, ratio_lines, spread, verdict
from benchmarks.serving.trace import MARK, digest
from tests import HANG


def run(seed, size=0.01, shift=0.0, outlier=0.0, regret=0.0, texts=8, length=32):
    """A backend's run whose log probabilities err by `size` (normally distributed) and by `shift` besides."""
    draw = random.Random(seed)
    fixed = random.Random(0)
    rows: list[dict[str, list[float]]] = []
    scores, exact_scores = [], []
    for _ in range(texts):
        exact = [-fixed.random() for _ in range(length)]
        best = [q + 0.1 * size * draw.random() for q in exact]
        rows.append(
            {
                "tokens": list(range(length)),
                "exact": exact,
                "best": best,
                "logprobs": [q + shift + size * draw.gauss(0, 1) for q in exact],
            }
        )
        exact_scores.append(exact)
        scores.append([q + shift + size * draw.gauss(0, 1) for q in exact])
    rows[0]["logprobs"][3] += outlier
    rows[0]["best"][3] += regret
    return {"sequences": rows, "scores": scores, "exact_scores": exact_scores}


def judged(ours):
    return verdict(errors_of(ours), [errors_of(run(1)), errors_of(run(2))])


def test_rounding_is_the_same():
    for seed in range(3, 30):
        assert judged(run(seed)) == []


@pytest.mark.parametrize(
    "fault",
    [{"shift": 0.03}, {"size": 0.02}, {"outlier": 0.2}, {"regret": 0.2}, {"outlier": float("nan")}, {"texts": 7}],
    ids=str,
)
def test_faults_are_not(fault):
    assert judged(run(3, **fault))


def test_a_wrong_reference_excuses_nothing():
    found = verdict(errors_of(run(1)), [errors_of(run(2, shift=0.5))])
    assert any("itself" in text for text in found)
    assert verdict(errors_of(run(1)), [])


def test_spread_and_agreement():
    assert spread([]) == {"tokens": 0, "mean": 0.0, "largest": 0.0, "bias": 0.0}
    assert spread([1.0, -3.0]) == {"tokens": 2, "mean": 2.0, "largest": 3.0, "bias": -1.0}
    one = {"sequences": [{"tokens": [1, 2, 3], "logprobs": [-1.0, -1.0, -1.0], "exact": [-1.0, -2.0, -3.0]}]}
    other = {"sequences": [{"tokens": [1, 5, 3], "logprobs": [-1.5, -1.0, -1.0], "exact": [-1.0, -2.25, -3.0]}]}
    assert agreement(one, other) == {
        "equal_tokens": 1,
        "tokens": 3,
        "equal_texts": 0,
        "texts": 1,
        "largest_gap_at_parting": 0.25,
        "mean_difference": 0.5,
        "largest_difference": 0.5,
    }
    assert agreement(one, one)["equal_texts"] == 1


def test_ratios_favour_the_faster():
    lines = ratio_lines({"rocmforge": {"a_ms": 2.0, "tokens_s": 30.0}, "OTHER": {"a_ms": 4.0, "tokens_s": 10.0}})
    assert "(2.00x)" in lines[0] and "(3.00x)" in lines[1]


def event(cat, name, ts, dur=1, tid=1, correlation=0):
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": {"correlation": correlation}}


def test_trace_digest():
    """Two steps: a range with a launch and a copy in it, a wait outside; a graph with a memset beside our kernel."""
    events = [
        {"ph": "M", "name": "process_name"},
        event("user_annotation", MARK + "forward", 10, 20),
        event("user_annotation", "step", 0, 200),
        event("cuda_driver", "cuLaunchKernel", 12, correlation=1),
        event("cuda_runtime", "cudaMemcpyAsync", 15, correlation=2),
        event("cuda_runtime", "cudaMemcpyAsync", 16, tid=2, correlation=3),  # another thread's
        event("cuda_runtime", "cudaStreamSynchronize", 50),
        event("cuda_runtime", "cudaGraphLaunch", 60, correlation=9),
        event("kernel", "ours", 20, 4, 7, 1),
        event("gpu_memcpy", "Memcpy DtoH", 25, 1, 7, 2),
        event("gpu_memcpy", "Memcpy DtoH", 27, 1, 7, 3),
        event("kernel", "gemm", 70, 6, 7, 9),
        event("kernel", "ours", 80, 2, 7, 9),
        event("gpu_memset", "Memset", 85, 1, 7, 9),
        event("kernel", "gemm", 90, 6, 7, 9),
        event("gpu_memset", "Memset", 98, 1, 7, 9),
    ]
    found = digest(events, 2, {"ours"})
    assert (found["kernels_per_step"], found["gpu_us_per_step"], found["own_us_per_step"]) == (2.0, 9.0, 3.0)
    assert found["own"] == {"ours": {"per_step": 1.0, "us_each": 3.0, "us_per_step": 3.0}} and "gemm" in found["others"]
    assert (found["copies_per_step"], found["memsets_per_step"], found["ranges_per_step"]) == (1.0, 1.0, 0.5)
    assert found["inside_attention"] == {"memcpy": 1}
    assert found["calls_inside_attention"] == {"cuLaunchKernel": 1, "cudaMemcpyAsync": 1}
    assert found["beside_attention"] == {"gpu_memset": 1}
    assert found["traffic_per_step"] == {"cudaMemcpyAsync": 1.0, "cudaStreamSynchronize": 0.5}


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


WORKER = """
import json, os, pathlib, subprocess, sys, time
spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
at = pathlib.Path(spec["result"])
if spec["act"] == "crash":
    raise ValueError("as planned")
at.write_text(json.dumps({"half": True}))
if spec["act"] == "hang":
    print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
    time.sleep(60)
if spec["act"] == "gate":
    at.with_suffix(".ready").touch()
    while not at.with_suffix(".go").exists():
        time.sleep(0.01)
    start = time.time(); time.sleep(0.2)
    at.write_text(json.dumps({"done": True, "from": start, "to": time.time()}))
else:
    at.write_text(json.dumps({"done": True, "env": os.environ.get("RF_GIVEN")}))
"""


@pytest.fixture
def task(tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    monkeypatch.setattr(pool, "WORKER", (sys.executable, str(worker)))

    def make(name, act):
        return pool.Task(name, {"task": "text", "act": act, "measure_limit": HANG}, tmp_path, {"RF_GIVEN": "7"}, HANG)

    return make


class Clock:
    """The pool's time, which passes a day once a task has written to its log."""

    def __init__(self, task):
        self.task, self.passed = task, 0.0

    def monotonic(self):
        return time.monotonic() + self.passed

    def sleep(self, seconds):
        time.sleep(seconds)
        if self.task.log.exists() and self.task.log.read_text().endswith("\n"):
            self.passed = 86400.0


def test_pool_reports_results_and_crashes(task):
    found: dict[str, Any] = {}
    tasks = [task("good", "work"), task("bad", "crash")]
    pool.run_pool(tasks, 2, time.monotonic() + HANG, lambda t: found.__setitem__(t.name, t.result()))
    assert found["good"] == {"done": True, "env": "7"}
    assert "exit status 1" in found["bad"]["failed"] and "as planned" in found["bad"]["failed"]


def test_pool_ends_what_takes_too_long(task, monkeypatch):
    """It keeps what the task saved before, and leaves none of its children."""
    found: dict[str, Any] = {}
    slow = task("slow one", "hang")
    monkeypatch.setattr(pool, "time", Clock(slow))
    pool.run_pool([slow], 2, time.monotonic() + 1e6, lambda t: found.__setitem__(t.name, t.result()))
    assert found["slow one"]["half"] and "stopped after 86" in found["slow one"]["failed"]
    child = int(slow.log.read_text())
    late = time.monotonic() + HANG
    while alive(child):  # killed with its group; whoever adopted it may take a moment to bury it
        assert time.monotonic() < late, "a child outlived its task"
        time.sleep(0.05)


def test_pool_stops_at_the_deadline(task, monkeypatch, capsys):
    found = []
    tasks = [task("a", "hang"), task("b", "work")]
    tasks[0].limit = 1e6
    monkeypatch.setattr(pool, "time", Clock(tasks[0]))
    pool.run_pool(tasks, 1, time.monotonic() + HANG, lambda t: found.append(t.name))
    assert found == ["a"] and "b not run" in capsys.readouterr().out


def test_gated_tasks_measure_one_after_another(task):
    found: dict[str, Any] = {}
    tasks = [task("one", "gate"), task("broken", "crash"), task("two", "gate")]
    pool.run_gated(tasks, HANG, time.monotonic() + HANG, lambda t: found.__setitem__(t.name, t.result()))
    assert "failed" in found["broken"]
    assert found["one"]["to"] <= found["two"]["from"]


def test_log_end_shows_the_error_first():
    log = "\n".join(["start", "KeyError: 'x'", *(f"line {i}" for i in range(40))])
    shown = pool.log_end(log).splitlines()
    assert "KeyError" in shown[0] and "line 39" in shown[-1] and len(shown) == pool.LOG_LINES + 2


SERVER = """
import http.server, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[0]).parent
if (folder / "broken").exists():
    sys.exit(3)
(folder / "child").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_bench_server_is_waited_for_and_ended(tmp_path, monkeypatch):
    stub = tmp_path / "serve.py"
    stub.write_text(SERVER)
    monkeypatch.setattr(bench, "VLLM", (sys.executable, str(stub)))
    monkeypatch.setattr(bench, "CHILDREN_SECONDS", 0.2)
    spec = {"model": "m", "backend": "TRITON_ATTN", "engine": []}
    children = []

    def use():
        with bench.server(spec) as url:
            children.append(int((tmp_path / "child").read_text()))
            assert alive(children[0]) and url.startswith("http://127.0.0.1:")
            raise KeyError("as planned")

    with pytest.raises(KeyError, match="as planned"):
        use()
    late = time.monotonic() + HANG
    while alive(children[0]):
        assert time.monotonic() < late, "a child outlived its server"
        time.sleep(0.05)
    (tmp_path / "broken").touch()
    with pytest.raises(RuntimeError, match="ended with 3 before it was ready"), bench.server(spec):
        pytest.fail("it is not ready")
