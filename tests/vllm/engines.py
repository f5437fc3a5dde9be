# SPDX-License-Identifier: Apache-2.0
"""Run the same requests through vLLM with two attention backends, in this process, and return all that matters."""
from __future__ import annotations

import gc
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

import rocmforge_plugin
from tools.checkpoints import make

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORDS = ("the key opens page seven and the lock closes page nine while rotary angles turn over every pair of numbers "
         "in a row; a cache keeps what was said before, block after block, until nobody asks for it any more. ")
# Prompt lengths on both sides of the 32-token pages' edges, and one that is prefilled in several chunks.
LENGTHS = (1, 31, 32, 33, 63, 64, 65, 200)


@cache
def checkpoint(kind: str, **shape: int) -> str:
    """Folder of a tiny seeded checkpoint; made once."""
    name = "-".join([kind, *(f"{key}{value}" for key, value in sorted(shape.items()))])
    return str(make(kind, ROOT / "build" / "checkpoints" / name, **shape))


def prompt(length: int, start: int = 0) -> dict[str, list[int]]:
    """`length` tokens of text, different for each `start` (a byte is a token)."""
    text = (WORDS * (2 + (start + length) // len(WORDS)))[start:start + length]
    return {"prompt_token_ids": TOKENIZER(text)}


def TOKENIZER(text: str) -> list[int]:
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
    defaults = {"max_model_len": 512, "block_size": 32, "max_num_batched_tokens": 64, "max_num_seqs": 16,
                "kv_cache_memory_bytes": 64 << 20, "enforce_eager": True, "disable_log_stats": False,
                "enable_prefix_caching": False, "distributed_executor_backend": "uni", "seed": 0}
    # The CPU worker binds the process to cores of its choice, and puts a function that does nothing here.
    set_threads, threads, cores = torch.set_num_threads, torch.get_num_threads(), os.sched_getaffinity(0)
    gc.freeze()  # vLLM collects garbage several times when it ends; what is here now stays anyway
    llm = LLM(model, dtype=dtype, attention_backend=backend, trust_remote_code=False, **(defaults | settings))
    rocmforge_plugin.reset_launches()
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
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
    return [[Sequence(list(one.token_ids), [step[token].logprob for token, step in zip(one.token_ids, one.logprobs)])
             for one in result.outputs] for result in llm.generate(prompts, parameters, use_tqdm=False)]


def score(llm: Any, tokens: list[list[int]]) -> list[list[float]]:
    """Log probability of every token but the first of each sequence, given those before it."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
    results = llm.generate([{"prompt_token_ids": row} for row in tokens], parameters, use_tqdm=False)
    return [[step[token].logprob for token, step in zip(row[1:], result.prompt_logprobs[1:])]
            for row, result in zip(tokens, results)]


def launched(*beginnings: str) -> int:
    """Launches of the kernels whose names begin so, since the engine was ready."""
    return sum(count for name, count in rocmforge_plugin.launches().items() if name.startswith(beginnings))


def metric(llm: Any, name: str) -> float:
    """A counter of vLLM's own."""
    return sum(one.value for one in llm.get_metrics() if one.name == name)
