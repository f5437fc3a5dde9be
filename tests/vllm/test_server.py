# SPDX-License-Identifier: Apache-2.0
"""A real `vllm serve` process with its engine and worker processes, and a real client: the openai package."""

import concurrent.futures
import socket
import subprocess
import sys

import pytest

from tests import HANG
from tests.vllm.engines import ROOT, checkpoint
from tools import serve

QUESTION = [{"role": "user", "content": "Which page does the key open?"}]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A served GLM-4 with rocmforge's attention."""
    with socket.socket() as probe:  # any, not the usual one, which a test process beside this one may be about to take
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_LOGGING_LEVEL", "INFO")
        running = serve.Server(
            checkpoint("glm4"),
            port,
            ["--max-model-len", "512", "--max-num-seqs", "8", "--max-num-batched-tokens", "64"],
            log=tmp_path_factory.mktemp("server") / "serve.log",
        )
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
def client(server):
    """The openai package, pointed at the server."""
    import openai

    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as connected:
        yield connected


def ran(server, part):
    """Launches so far of the kernels with `part` in their names."""
    return sum(count for name, count in server.launches().items() if part in name)


def test_the_log_says_what_runs(server):
    log = server.log_path.read_text()
    (line,) = {line[line.index("rocmforge 0") :] for line in log.splitlines() if "code on" in line}
    assert line.startswith("rocmforge 0") and "attention" in line and "kv_write" in line
    assert "Using ROCMFORGE backend" in log


def test_completion_streams_what_it_returns(server, client):
    before = ran(server, "attention_decode"), ran(server, "kv_write")
    asked = {"model": server.name, "prompt": "the key opens", "max_tokens": 24, "temperature": 0}
    whole = client.completions.create(**asked)
    pieces = [chunk.choices[0].text for chunk in client.completions.create(stream=True, **asked) if chunk.choices]
    assert "".join(pieces) == whole.choices[0].text and len(pieces) > 1
    steps = 2 * whole.usage.completion_tokens
    assert ran(server, "attention_decode") - before[0] >= 2 * (steps - 2)
    assert ran(server, "kv_write") - before[1] >= 2 * (steps - 2)


def test_chat_streams_what_it_returns(server, client):
    asked = {"model": server.name, "messages": QUESTION, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0].message.content
    stream = client.chat.completions.create(stream=True, **asked)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices) == whole


def test_many_clients_get_what_each_would_get_alone(server, client):
    prompts = ["page " * n + "seven" for n in (1, 3, 9, 20, 40, 60)]

    def ask(prompt):
        answer = client.completions.create(model=server.name, prompt=prompt, max_tokens=12, temperature=0, logprobs=1)
        return answer.choices[0].logprobs

    alone = [ask(prompt) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(ask, prompts))
    for one, other in zip(together, alone, strict=True):
        # bf16 products round differently in a larger batch, so only the scores of the first token must agree.
        assert one.token_logprobs[0] == pytest.approx(other.token_logprobs[0], abs=0.1)


def test_a_client_that_leaves_does_not_hurt_the_others(server, client):
    asked = {"model": server.name, "prompt": "the lock closes", "max_tokens": 24, "temperature": 0}
    expected = client.completions.create(**asked).choices[0].text
    stream = client.completions.create(stream=True, **(asked | {"max_tokens": 400}))
    next(iter(stream))
    stream.close()
    assert client.completions.create(**asked).choices[0].text == expected


def test_launch_route_counts_per_worker(server):
    import json
    import urllib.request

    with urllib.request.urlopen(f"{server.url}/rocmforge/launches") as reply:
        report = json.load(reply)
    assert report["total"] == report["workers"][0] and len(report["workers"]) == 1
    assert report["emulation"] is None


def test_report_of_the_driver(server, capsys, monkeypatch):
    """What `make serve` prints once the server is ready, and its verdict when a kernel's launches are missing."""
    assert serve.try_it(server, checkpoint("glm4"))
    printed = capsys.readouterr().out
    assert "completion:" in printed and "chat:" in printed and "tokens/s" in printed and "attention" in printed
    real = server.launches
    for absent, kind in (
        ("attention_prefill", "prompt attention"),
        ("attention_decode", "decode attention"),
        ("kv_write", "KV cache write"),
        ("rotary", "position embedding"),
    ):
        monkeypatch.setattr(server, "launches", lambda: {k: n for k, n in real().items() if absent not in k})
        assert not serve.try_it(server, checkpoint("glm4"))
        verdict = capsys.readouterr().out.split("did NOT run: ")[1]
        assert kind in verdict


def test_serve_once_fails_when_another_backend_did_the_work():
    """The driver of `make serve ONCE=1`, from start to end."""
    command = [
        sys.executable,
        str(ROOT / "tools" / "serve.py"),
        "--model",
        checkpoint("glm4"),
        "--once",
        "--",
        "--max-model-len",
        "512",
        "--attention-backend",
        "CPU_ATTN",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "did NOT run: prompt attention, decode attention, KV cache write" in done.stdout
