# SPDX-License-Identifier: Apache-2.0
"""The same plan against a running `vllm serve`, through lm-eval's local-completions client."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from rocmforge_plugin.evaluate.records import DECODE, Record, Run
from rocmforge_plugin.evaluate.session import Plan, own_continuations

LAUNCHES = "/rocmforge/launches"
#: Seconds for one request; a CPU server may take minutes over a long prompt. And for the first, which costs it nothing.
TIMEOUT, FIRST_TIMEOUT = 600, 20


class ServerError(RuntimeError):
    """The server cannot be used for this; the message says what to do."""


def ask(url: str, body: dict[str, Any] | None = None, timeout: float = TIMEOUT) -> Any:
    """GET, or POST of JSON. Raises ServerError with the server's own words."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        raise ServerError(f"{url}: HTTP {error.code}: {error.read().decode(errors='replace')[:400]}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: no URL, or no JSON in the reply
        raise ServerError(f"{url}: {error}; is `vllm serve` running there? Expected http://host:port") from error


def served_model(url: str) -> dict[str, Any]:
    """What a server at http://host:port serves: {"id": name, "max_model_len": tokens, ...}.

    Raises ServerError, within FIRST_TIMEOUT seconds, where nothing answers or something else does.
    """
    where = f"{url.rstrip('/')}/v1/models"
    found = ask(where, timeout=FIRST_TIMEOUT)
    try:
        served: dict[str, Any] = found["data"][0]
    except (KeyError, IndexError, TypeError) as error:
        raise ServerError(f"{where}: expected a list of models, got {str(found)[:200]}") from error
    return served


class ServerSession:
    """A running server, used like `session.Session`."""

    def __init__(self, plan: Plan, url: str, backend: str, dtype: str, label: str) -> None:
        """url: http://host:port. backend and dtype: what the server was started with; they only label the report."""
        self.plan, self.url, self.backend, self.dtype, self.label = plan, url.rstrip("/"), backend, dtype, label
        listed = served_model(self.url)
        self.served, self.longest = listed["id"], int(listed.get("max_model_len") or 2048)
        from rocmforge_plugin.evaluate.harness import RecordingCompletions

        wanted = int(plan.engine.get("max_model_len") or self.longest)
        if wanted > self.longest:
            raise ServerError(
                f"{self.url} serves at most {self.longest} tokens, the tasks need {wanted}; "
                f"start it with --max-model-len {wanted}"
            )
        self.model = RecordingCompletions(
            model=self.served,
            base_url=f"{self.url}/v1/completions",
            tokenizer=plan.model,
            tokenized_requests=True,
            tokenizer_backend="huggingface",
            num_concurrent=8,
            max_length=wanted,
            timeout=TIMEOUT,
        )
        self.launches: dict[str, dict[str, int]] = {}
        self.notes: list[str] = []
        self.emulation: str | None = None
        self._counted = self._count()

    def _count(self) -> Counter[str] | None:
        try:
            found = ask(self.url + LAUNCHES)
            self.emulation = found.get("emulation")
            return Counter(found["total"])
        except ServerError:
            note = (
                "the server does not report launches; start it with --worker-extension-cls "
                "rocmforge_plugin.vllm.report.LaunchCounts --middleware rocmforge_plugin.vllm.report.LaunchReport"
            )
            if note not in self.notes:
                self.notes.append(note)
            return None

    def _phase(self, name: str) -> None:
        now, before = self._count(), self._counted
        if now is not None and before is not None:
            self.launches[name] = {
                kernel: now[kernel] - before[kernel] for kernel in sorted(now) if now[kernel] > before[kernel]
            }
        self._counted = now

    def forced(self, wanted: list[dict[str, Any]]) -> list[Record]:
        """Decode every continuation, one request each; an empty list where the server cannot be made to."""
        from rocmforge_plugin.evaluate.forced import KEY

        records: list[Record] = []
        counts: Counter[str] = Counter()
        started = time.time()
        for place, item in enumerate(wanted):
            prompt = item.get("prompt_ids") or self.model.tok_encode(item["prompt"])
            ids = item.get("ids") or self.model.tok_encode(item["continuation"])
            reply = ask(
                f"{self.url}/v1/completions",
                {
                    "model": self.served,
                    "prompt": prompt,
                    "max_tokens": len(ids),
                    "temperature": 0,
                    "logprobs": 1,
                    "ignore_eos": True,
                    "return_token_ids": True,
                    "vllm_xargs": {KEY: ids},
                },
            )
            choice = reply["choices"][0]
            if choice.get("token_ids") != ids:
                self.notes.append(
                    "the server does not decode forced tokens, so decoding is not covered; start it with "
                    "--logits-processors rocmforge_plugin.evaluate.forced:ForcedTokens"
                )
                return []
            counts[item["name"]] += 1
            logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
            best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"]]
            records.append(
                Record(
                    DECODE,
                    f"{item['name']} (forced)",
                    f"{item['length']}/{counts[item['name']]}",
                    len(prompt),
                    tokens=ids,
                    logprobs=logprobs,
                    greedy=[mine >= top for mine, top in zip(logprobs, best, strict=True)],
                )
            )
            if (place + 1) % 20 == 0 or place + 1 == len(wanted):
                print(
                    f"  {self.label} decoding: {place + 1}/{len(wanted)} requests, {time.time() - started:.0f} s",
                    flush=True,
                )
        self._phase("decode")
        return records

    def run(self, wanted: list[dict[str, Any]] | None) -> Run:
        """Everything of the plan; wanted as for `Session.run`."""
        from rocmforge_plugin.evaluate import harness

        plan, started = self.plan, time.time()
        folder = Path(plan.folder) if plan.folder else None
        records, scores = harness.run_tasks(self.model, plan.tasks, folder, plan.limit, plan.about, plan.settings)
        self._phase("tasks")
        if wanted is None:
            wanted = own_continuations(self.model.scored)
        records += self.forced(wanted)
        about = {
            "model": self.served,
            "url": self.url,
            "backend": self.backend,
            "dtype": self.dtype,
            "emulation": self.emulation,
            "notes": self.notes,
            "seconds": round(time.time() - started, 1),
            "forced": wanted,
        }
        return Run(self.backend, self.dtype, records, self.launches, scores, about)
