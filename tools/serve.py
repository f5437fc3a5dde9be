#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Serve a model with `vllm serve MODEL --attention-backend rocmforge`, try it, and show which kernels ran.

    python tools/serve.py [--model MODEL] [--port N] [--once] [-- further arguments of `vllm serve`]

After start-up one completion and one chat request are sent; their answers, the speed and the launch counts of
rocmforge's kernels follow, then the server keeps serving. With --once it ends there, and exits with 1 when a kernel
that should have run did not.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOG = ROOT / "build" / "serve.log"
# The one place that says what is served when no model is named: the first that exists, else one is made.
SHIPPED_MODEL = ROOT / "evals" / "checkpoints" / "glm4-tiny"
MADE_MODEL = ROOT / "build" / "checkpoints" / "glm4-served"
COMPLETION = "The quick brown fox"
# The shipped model was trained to repeat what stands between "C:" and "=", which takes attention to every page.
SHIPPED_COMPLETION = "C:Rocm4Gfx942+Gfx1201/PagedKv="
CHAT = "Say hello to a GPU."
MAX_TOKENS = 48
# What a served step must have launched: a kernel with this in its name (one may do two of them).
REQUIRED = {
    "prompt attention": "attention_prefill",
    "decode attention": "attention_decode",
    "KV cache write": "kv_write",
}
GLM_REQUIRED = {"position embedding": "rotary"}


def say(text: str) -> None:
    """One line of progress."""
    print(f"[serve] {text}", flush=True)


def default_model() -> pathlib.Path:
    """The shipped checkpoint, or a seeded GLM-4 of random weights made on the first call."""
    if (SHIPPED_MODEL / "config.json").exists():
        return SHIPPED_MODEL
    sys.path.insert(0, str(ROOT))
    from tools.checkpoints import make

    say(f"no MODEL named: serving a small GLM-4 with seeded random weights, {MADE_MODEL.relative_to(ROOT)}")
    return make("glm4", MADE_MODEL, num_hidden_layers=4, head_dim=128)


def free_port(wanted: int | None) -> int:
    """`wanted`, or 8000 when it is free, or any free one."""
    for port in [wanted] if wanted else [8000, 0]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise SystemExit(f"[serve] port {wanted} is in use; name another one with PORT=")


@dataclass
class Answer:
    """What came back for one request, and how fast."""

    text: str
    tokens: int
    first_token: float
    seconds: float

    def speed(self) -> str:
        """Tokens per second of the decode phase, and the time to the first token."""
        decoding = self.seconds - self.first_token
        rate = f"{(self.tokens - 1) / decoding:.1f} tokens/s" if self.tokens > 1 and decoding > 0 else "one token"
        return f"{self.tokens} tokens, first after {self.first_token * 1e3:.0f} ms, then {rate}"


class Server:
    """A `vllm serve` process, its log and its HTTP interface."""

    def __init__(self, model: str, port: int, arguments: list[str], log: pathlib.Path = LOG) -> None:
        self.name = pathlib.Path(model).name if pathlib.Path(model).exists() else model
        self.url = f"http://127.0.0.1:{port}"
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        environment.setdefault("VLLM_NO_USAGE_STATS", "1")
        command = [
            sys.executable,
            "-m",
            "vllm.entrypoints.cli.main",
            "serve",
            model,
            "--attention-backend",
            "rocmforge",
            "--port",
            str(port),
            "--served-model-name",
            self.name,
            "--worker-extension-cls",
            "rocmforge_plugin.vllm.report.LaunchCounts",
            "--middleware",
            "rocmforge_plugin.vllm.report.LaunchReport",
        ]
        if pathlib.Path(model).exists():
            environment.setdefault("HF_HUB_OFFLINE", "1")
        if not has_gpu():
            # vLLM would take half of the machine's memory for pages, and minutes to compile the model for the CPU.
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            command += ["--enforce-eager"]
        command += arguments
        log.parent.mkdir(parents=True, exist_ok=True)
        say(f"{' '.join(['vllm', *command[3:]])}\n[serve] log: {log}")
        self.log_path = log
        self.log = log.open("w")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def last_lines(self, count: int) -> list[str]:
        """The end of the server's log."""
        return self.log_path.read_text(errors="replace").splitlines()[-count:]

    def wait_until_ready(self) -> None:
        """Show the log's last line as it changes until the server answers; SystemExit when it ends before that."""
        start, shown, last = time.monotonic(), 0.0, ""
        while True:
            if self.process.poll() is not None:
                print("\n".join(self.last_lines(40)))
                for cause in self.causes():
                    say(cause)
                raise SystemExit(
                    f"[serve] the server ended with {self.process.returncode} before it was ready; "
                    f"its log: {self.log_path}"
                )
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2):
                    say(f"ready after {time.monotonic() - start:.1f} s")
                    break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
            line = "".join(self.last_lines(1)).strip()[:140]
            quiet = time.monotonic() - shown
            if (line != last and quiet > 1) or quiet > 10:
                shown, last = time.monotonic(), line
                say(f"starting, {shown - start:.0f} s: {line}")
        for line in self.last_lines(1000):
            if "] rocmforge " in line:
                say(line.split("] ", 1)[-1])

    def causes(self) -> list[str]:
        """The errors in the log, each once, without those that only say that another process failed."""
        errors = re.findall(r"(?m)((?:\w+\.)*\w+(?:Error|Exception): .+)$", self.log_path.read_text(errors="replace"))
        return [error for error in dict.fromkeys(errors) if "See root cause" not in error]

    def report(self) -> dict[str, Any]:
        """What the server says of its launches."""
        with urllib.request.urlopen(f"{self.url}/rocmforge/launches", timeout=60) as reply:
            return json.load(reply)

    def launches(self) -> dict[str, int]:
        """Kernel launches of all workers so far."""
        return self.report()["total"]

    def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """Stream one request; RuntimeError with the server's message when it is refused."""
        body = {
            "model": self.name,
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **body,
        }
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        start = time.monotonic()
        text, tokens, first = "", 0, None
        try:
            with urllib.request.urlopen(request, timeout=600) as reply:
                for event in _events(reply):
                    for choice in event.get("choices", ()):
                        piece = choice.get("text")
                        if piece is None:
                            piece = choice["delta"].get("content") or choice["delta"].get("reasoning") or ""
                        if first is None and (piece or choice.get("finish_reason")):
                            first = time.monotonic() - start
                        text += piece
                    tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode(errors="replace")) from error
        return Answer(text, tokens, first or 0.0, time.monotonic() - start)

    def stop(self) -> None:
        """End the server and its engine processes."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.log.close()


def has_gpu() -> bool:
    """Whether torch sees one here (ROCm's torch calls it cuda too)."""
    import torch

    return torch.cuda.is_available()


def _events(reply: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of a server-sent event stream."""
    for raw in reply:
        line = raw.decode().strip()
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line[len("data: ") :])


def missing(counts: dict[str, int], model: str) -> list[str]:
    """The kinds of kernels that should have run and did not."""
    config = pathlib.Path(model) / "config.json"
    glm = config.exists() and any("glm" in name.lower() for name in json.loads(config.read_text())["architectures"])
    required = REQUIRED | (GLM_REQUIRED if glm else {})
    return [
        kind
        for kind, name in required.items()
        if not any(count > 0 and name in kernel for kernel, count in counts.items())
    ]


def try_it(server: Server, model: str) -> bool:
    """Send both requests and print the report; whether every kernel ran and every answer came."""
    before = server.launches()
    fine = True
    tokens = 0
    prompt = SHIPPED_COMPLETION if pathlib.Path(model) == SHIPPED_MODEL else COMPLETION
    requests = (
        ("completion", prompt, "/v1/completions", {"prompt": prompt}),
        ("chat", CHAT, "/v1/chat/completions", {"messages": [{"role": "user", "content": CHAT}]}),
    )
    for kind, question, path, body in requests:
        try:
            answer = server.ask(path, body)
        except RuntimeError as error:
            if kind == "chat" and "chat template" in str(error):
                say("the model has no chat template, so no chat request")
                continue
            say(f"{kind} failed: {error}")
            fine = False
            continue
        tokens += answer.tokens
        say(f"{kind}: {question!r} -> {answer.text!r}")
        say(f"    {answer.speed()}")
    after = server.launches()
    counts = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    emulated = server.report()["emulation"]
    say(f"rocmforge kernels that ran for these {tokens} tokens{f', {emulated}' if emulated else ''}:")
    for name, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"    {count:8d}  {name}")
    absent = missing(after if has_gpu() else counts, model)
    if absent:
        say(f"did NOT run: {', '.join(absent)}")
    return fine and not absent


def curl_line(server: Server) -> str:
    """A request to try next."""
    body = json.dumps({"model": server.name, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 32})
    return f"curl {server.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="checkpoint folder or hub name")
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--once", action="store_true", help="stop after the report; 1 when a kernel did not run")
    parser.add_argument("arguments", nargs="*", help="further arguments of vllm serve, after --")
    given = parser.parse_args()
    model = given.model or str(default_model())
    server = Server(model, free_port(given.port), given.arguments)
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    try:
        server.wait_until_ready()
        fine = try_it(server, model)
        if given.once:
            return 0 if fine else 1
        say(f"try: {curl_line(server)}")
        say("serving; Ctrl-C ends it")
        follow(server)
        return server.process.wait()
    except KeyboardInterrupt:
        say("stopping")
        return 0
    finally:
        server.stop()


def follow(server: Server) -> None:
    """Copy the server's log to the terminal from here on, in the background."""
    reader = server.log_path.open(errors="replace")
    reader.seek(0, os.SEEK_END)

    def copy() -> None:
        while server.process.poll() is None:
            if line := reader.readline():
                print(line, end="", flush=True)
            else:
                time.sleep(0.2)

    threading.Thread(target=copy, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
