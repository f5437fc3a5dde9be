# SPDX-License-Identifier: Apache-2.0
r"""Proof of execution: one line in the engine's log at start, and launch counts on request.

Counts live where the kernels are launched, in the engine's worker processes. Two of vLLM's own extension points bring
them out, both opt-in and neither on any hot path:

    vllm serve MODEL --attention-backend rocmforge \
        --worker-extension-cls rocmforge_plugin.vllm.report.LaunchCounts \
        --middleware rocmforge_plugin.vllm.report.LaunchReport
    curl http://localhost:8000/rocmforge/launches

With `LLM(..., worker_extension_cls=...)`, `llm.collective_rpc("rocmforge_launches")` returns the same, one dict per
worker. A kernel that is part of a captured graph counts when it is recorded, not when the graph replays.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

import torch

ROUTE = "/rocmforge/launches"
METHOD, EMULATED = "rocmforge_launches", "rocmforge_emulated"


class LaunchCounts:
    """vLLM worker extension: adds the methods that `collective_rpc` calls in every worker."""

    def rocmforge_launches(self) -> dict[str, int]:
        """Launches by kernel since the worker started."""
        import rocmforge_plugin

        return rocmforge_plugin.launches()

    def rocmforge_emulated(self) -> str | None:
        """What is to be said of the worker's launches where they are an emulated GPU's; None otherwise."""
        from rocmforge_plugin import device

        cpu = torch.device("cpu")
        return device.emulation_label(cpu) if device.known(-1) else None


class LaunchReport:
    """ASGI middleware of the API server.

    GET /rocmforge/launches -> {"total": {...}, "workers": [{...}, ...], "emulation": what is said of an emulated GPU,
    null for a real device}.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != ROUTE or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        engine = scope["app"].state.engine_client
        workers = await engine.collective_rpc(METHOD)
        emulated = (await engine.collective_rpc(EMULATED))[0]  # workers have one environment
        total: Counter[str] = Counter()
        for counts in workers:
            total.update(counts)
        report = {"total": dict(sorted(total.items())), "workers": workers, "emulation": emulated}
        body = json.dumps(report).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@cache
def log_summary(device: torch.device) -> None:
    """Log once per process and device which target, device, code objects and kernels will run."""
    import rocmforge_plugin
    from rocmforge_plugin.vllm.log import logger

    logger.info("%s", rocmforge_plugin.summary(device))
