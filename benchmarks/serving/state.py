# SPDX-License-Identifier: Apache-2.0
"""What the sections of the command share: where files go, what has been found, how an engine's process is set up."""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from .pool import Task
from .worker import write

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

    def task(
        self,
        name: str,
        spec: dict[str, Any],
        limit: float,
        gated: bool = False,
        position: bool = True,
        threads: int = 2,
    ) -> Task:
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
        settings: dict[str, Any] = {
            "max_model_len": 640,
            "max_num_batched_tokens": 1024,
            "max_num_seqs": 32,
            "disable_log_stats": False,
            "enable_prefix_caching": False,
            "block_size": 16 if self.gpu else 32,
        }
        if self.gpu:
            return settings | {
                "kv_cache_memory_bytes": GIB,
                "gpu_memory_utilization": 0.04,
                "compilation_config": {
                    "cudagraph_mode": "FULL_AND_PIECEWISE",
                    "cudagraph_capture_sizes": [1, 2, 4, 8, 16, 32, 64, 128],
                },
            }
        return settings | {
            "kv_cache_memory_bytes": GIB // 16,
            "enforce_eager": True,
            "distributed_executor_backend": "uni",
        }
