# SPDX-License-Identifier: Apache-2.0
"""Run the same requests through vLLM twice, with rocmforge here and without any of it in another process."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch

import rocmforge_plugin
from tools.checkpoints import make

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORDS = (
    "the key opens page seven and the lock closes page nine while rotary angles turn over every pair of numbers "
    "in a row; a cache keeps what was said before, block after block, until nobody asks for it any more. "
)
# Prompt lengths on both sides of the 32-token pages' edges, and one that is prefilled in several chunks.
LENGTHS = (1, 31, 32, 33, 63, 64, 65, 200)


@cache
def checkpoint(kind: str, **shape: int) -> str:
    """Folder of a tiny seeded checkpoint; made once."""
    name = "-".join([kind, *(f"{key}{value}" for key, value in sorted(shape.items()))])
    return str(make(kind, ROOT / "build" / "checkpoints" / name, **shape))


def prompt(length: int, start: int = 0) -> dict[str, list[int]]:
    """`length` tokens of text, different for each `start` (a byte is a token)."""
    text = (WORDS * (2 + (start + length) // len(WORDS)))[start : start + length]
    return {"prompt_token_ids": tokenize(text)}


def tokenize(text: str) -> list[int]:
    """The checkpoints' byte-level encoding, without special tokens."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint("glm4"))(text, add_special_tokens=False)["input_ids"]


@dataclass
class Sequence:
    """One generated sequence."""

    tokens: list[int]
    logprobs: list[float]


@contextmanager
def engine(model: str, backend: str, dtype: str, **settings: Any) -> Iterator[Any]:
    """An LLM in this process, shut down at the end; launch counts start at zero."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    before = dict(os.environ)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # which allows the executor without a worker process
    defaults = {
        "max_model_len": 512,
        "block_size": 32,
        "max_num_batched_tokens": 64,
        "max_num_seqs": 16,
        "kv_cache_memory_bytes": 64 << 20,
        "enforce_eager": True,
        "disable_log_stats": False,
        "enable_prefix_caching": False,
        "distributed_executor_backend": "uni",
        "seed": 0,
    }
    # The CPU worker binds the process to cores of its choice, and puts a function that does nothing here.
    set_threads, threads, cores = torch.set_num_threads, torch.get_num_threads(), os.sched_getaffinity(0)
    llm = None
    try:
        # vLLM looks at a model's class in a new process, 14 s of imports, unless its cache folder knows the class.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("vllm.model_executor.models.registry._run_in_subprocess", lambda look: look())
            llm = LLM(model, **({"dtype": dtype, "attention_backend": backend} | defaults | settings))
        rocmforge_plugin.reset_launches()
        yield llm
    finally:
        # vLLM collects garbage five times on its way out, half a second each in a process this full; once will do.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gc, "collect", lambda *_: 0)
            if llm is not None:
                llm.llm_engine.engine_core.shutdown()
            del llm
            cleanup_dist_env_and_memory()
        gc.collect()
        os.sched_setaffinity(0, cores)
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def greedy(llm: Any, prompts: list[dict], max_tokens: int = 16, **settings: Any) -> list[Sequence]:
    """One greedy sequence per prompt."""
    return [sequences[0] for sequences in sample(llm, prompts, max_tokens, temperature=0.0, **settings)]


def sample(llm: Any, prompts: list[dict], max_tokens: int = 16, **settings: Any) -> list[list[Sequence]]:
    """Sampled sequences per prompt, never ended early."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=max_tokens, ignore_eos=True, logprobs=0, **settings)
    return [[generated(one) for one in result.outputs] for result in llm.generate(prompts, parameters, use_tqdm=False)]


def generated(output: Any) -> Sequence:
    """One of a request's outputs, which has a log probability for each of its tokens."""
    steps = zip(output.token_ids, output.logprobs, strict=True)
    return Sequence(list(output.token_ids), [step[token].logprob for token, step in steps])


def score(llm: Any, tokens: list[list[int]]) -> list[list[float]]:
    """Log probability of every token but the first of each sequence, given those before it."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
    results = llm.generate([{"prompt_token_ids": row} for row in tokens], parameters, use_tqdm=False)
    return [
        [step[token].logprob for token, step in zip(row[1:], result.prompt_logprobs[1:], strict=True)]
        for row, result in zip(tokens, results, strict=True)
    ]


def largest(differences: Iterable[float]) -> float:
    """The largest of them; NaN counts as infinite. `max` would overlook one behind the first: nothing is larger."""
    return max(math.inf if math.isnan(one) else one for one in differences)


def metric(llm: Any, name: str) -> float:
    """A counter of vLLM's own."""
    return sum(one.value for one in llm.get_metrics() if one.name == name)


class Run(NamedTuple):
    """What a workload returned, and the launches it made by kernel."""

    result: Any
    launches: dict[str, int]

    def ran(self, part: str) -> int:
        """Launches of the kernels with `part` in their names."""
        return sum(count for name, count in self.launches.items() if part in name)


def run(model: str, backend: str, dtype: str, workload: Callable[[Any], Any], settings: dict[str, Any]) -> Run:
    """`workload(llm)` on an engine made for it."""
    with engine(model, backend, dtype, **settings) as llm:
        result = workload(llm)
        return Run(result, {name: count for name, count in rocmforge_plugin.launches().items() if count})


def run_ours(
    model: str, workload: Callable[[Any], Any], dtype: str = "float32", without: Collection[str] = (), **settings: Any
) -> Run:
    """With rocmforge, in this process; every kind of kernel that a layer needs must have run, but those that the model
    goes `without`.
    """
    ours = run(model, "rocmforge", dtype, workload, settings)
    for part in ("attention_plan", "attention_prefill", "attention_decode", "kv_write", "rotary"):
        assert (ours.ran(part) > 0) == (part not in without), f"{part} in {ours.launches}"
    return ours


class Reference:
    """A process in which vLLM's own attention, position layers and model classes run, beside this one."""

    def __init__(self) -> None:
        before = os.environ.get("ROCMFORGE_POSITION")
        os.environ["ROCMFORGE_POSITION"] = "0"
        try:
            self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
            self.pool.submit(os.getpid).result()  # the process starts here, with that environment
        finally:
            if before is None:
                del os.environ["ROCMFORGE_POSITION"]
            else:
                os.environ["ROCMFORGE_POSITION"] = before

    def start(self, model: str, workload: Callable[[Any], Any], dtype: str = "float32", **settings: Any) -> Any:
        """A future of the run; `workload` must be a function of a module."""
        return self.pool.submit(run, model, "CPU_ATTN", dtype, workload, settings)

    def both(
        self,
        model: str,
        workload: Callable[[Any], Any],
        dtype: str = "float32",
        own_settings: dict[str, Any] | None = None,
        without: Collection[str] = (),
        **settings: Any,
    ) -> tuple[Run, Run]:
        """The workload with rocmforge (with `own_settings` besides; `without` as for `run_ours`) and without, at the
        same time.
        """
        future = self.start(model, workload, dtype, **settings)
        ours = run_ours(model, workload, dtype, without, **(settings | (own_settings or {})))
        theirs = future.result()
        assert theirs.launches == {}, "the reference ran rocmforge's kernels"
        return ours, theirs
