# SPDX-License-Identifier: Apache-2.0
"""`rocmforge eval --url` against a real `vllm serve`: it passes as it is, and does not with a fault planted in it."""

from __future__ import annotations

import dataclasses
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")
from vllm.platforms import current_platform

from rocmforge_plugin.evaluate import command, report, rule
from rocmforge_plugin.evaluate.records import Run
from rocmforge_plugin.evaluate.server import ServerSession, ask
from tests import HANG
from tests.evals.planted import Planted
from tools import serve

on_cpus = pytest.mark.skipif(not current_platform.is_cpu(), reason="rocmforge has float32 on CPUs alone")
ROOT = Path(__file__).resolve().parents[2]
#: What evals/README.md says a server must be started with. The one here takes faults besides, and its engine's process
#: is the worker, too (10 s less to start; tests/vllm/test_server.py has the usual processes).
SERVED = [
    *("--dtype", "float32", "--max-model-len", "2304", "--no-enable-prefix-caching"),
    *("--logits-processors", "rocmforge_plugin.evaluate.forced:ForcedTokens"),
    *("--distributed-executor-backend", "uni"),
    *("--worker-extension-cls", f"{Planted.__module__}.{Planted.__qualname__}"),
]


def arguments(folder: Path, *more: str) -> list[str]:
    """Of the smallest evaluation in float32."""
    return ["--size", "smoke", "--dtype", "float32", "--out", str(folder), *more]


def evaluate(*given: str) -> subprocess.CompletedProcess[str]:
    """`rocmforge eval` in a process of its own."""
    line = [sys.executable, "-m", "rocmforge_plugin.evaluate.command", *given]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=HANG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs and the report lie."""
    return tmp_path_factory.mktemp("eval")


@pytest.fixture(scope="module")
def plan(folder: Path) -> Any:
    """What the command runs."""
    return command.make_plan(command.parser().parse_args(arguments(folder)))


@pytest.fixture(scope="module")
def server(folder: Path, plan: Any) -> Iterator[serve.Server]:
    """A ready server of the small trained GLM-4; the reference's run is made while it starts (20 s less)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_SERVER_DEV_MODE", "1")  # lets a client call methods of the workers
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # which allows that executor
        patch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "1")  # for the client, as in the usual processes
        patch.setenv("PYTHONPATH", str(ROOT), prepend=":")
        running = serve.Server(str(serve.SHIPPED_MODEL), serve.free_port(None), SERVED, log=folder / "serve.log")
    try:
        (folder / "runs").mkdir()
        command.Jobs(plan, folder / "runs").run("reference.float32", "auto", "float32")
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@on_cpus
def test_a_server_answers_as_the_reference_does(server: serve.Server, folder: Path) -> None:
    before = server.launches()
    done = evaluate(*arguments(folder, "--url", server.url, "--reuse-reference"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "from the earlier call" in done.stdout
    after = server.launches()
    found = json.loads((folder / "report.json").read_text("utf-8"))
    assert found["verdict"] == "SAME"
    (leg,) = found["legs"]
    candidate = leg["candidate"]
    assert candidate["about"]["url"] == server.url and not candidate["about"]["notes"]
    assert candidate["about"]["emulation"] is None
    assert {
        "prefill: mean difference",
        "decode: mean difference",
        "decode: bias",
        "generate: greedy agreement",
        "rocmforge ran, tasks",
        "rocmforge ran, decode",
    } <= {check["name"] for check in leg["checks"]}
    assert all(check["passed"] for check in leg["checks"])
    tokens = {kind["name"]: kind["tokens"] for kind in leg["kinds"]}
    assert tokens["prefill"] > 2000 and tokens["decode"] > 200
    # What the report says ran is what this server launched meanwhile.
    phases = candidate["launches"]
    for kernel in ("attention_plan", "attention_prefill", "attention_decode", "kv_write"):
        for phase in ("tasks", "decode"):
            assert any(kernel in name for name in phases[phase]), f"no {kernel} in {phase}"
        told = sum(count for counts in phases.values() for name, count in counts.items() if kernel in name)
        assert told == sum(count - before.get(name, 0) for name, count in after.items() if kernel in name)
    assert not any(leg["reference"]["launches"].values())


@on_cpus
def test_a_fault_in_the_server_is_seen(server: serve.Server, folder: Path, plan: Any) -> None:
    """Scores 2 % too large: library text alone, scored and forced after short prompts, is enough to tell."""
    forced = [item for item in plan.forced if item["name"] == "text" and item["length"] < 1000]
    plan = dataclasses.replace(plan, tasks=["rocmforge_text"], limit=2)

    def scaled(factor: float) -> list[str]:
        reply = ask(f"{server.url}/collective_rpc", {"method": "scale_attention", "args": [factor]})
        return reply["results"][0]

    assert set(scaled(1.02)) == {"RocmForgeImpl"}
    try:
        candidate = ServerSession(plan, server.url, "rocmforge", "float32", "planted").run(forced)
    finally:
        scaled(1 / 1.02)
    reference = Run.load(folder / "runs" / "reference.float32.json.gz")
    asked = {record.key for record in candidate.records}
    reference.records = [record for record in reference.records if record.key in asked]
    judged = rule.judge(reference, candidate)
    assert report.verdict([report.Leg(reference, candidate, judged)]) == report.DIFFERENT
    failed = {check.name for check in judged.failures}
    assert {"prefill: mean difference", "decode: mean difference"} <= failed
    assert "every item answered by both" not in failed and not judged.undecided


class Stranger(http.server.BaseHTTPRequestHandler):
    """A web server that is not vLLM."""

    def do_GET(self) -> None:
        body = b"<html>hello</html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of a running Stranger."""
    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize("option", ["--url", "--reference-url"])
@pytest.mark.parametrize("where", ["nobody", "stranger", "no address"])
def test_a_url_without_vllm_is_named_before_anything_runs(
    option: str, where: str, stranger: str, tmp_path: Path
) -> None:
    url = {"nobody": f"http://127.0.0.1:{serve.free_port(0)}", "stranger": stranger, "no address": "localhost"}[where]
    done = evaluate(*arguments(tmp_path, option, url))
    assert done.returncode == 2 and f"{option} {url}: {url}/v1/models: " in done.stderr, done.stderr
    assert "is `vllm serve` running there?" in done.stderr
    assert not list((tmp_path / "runs").iterdir())
