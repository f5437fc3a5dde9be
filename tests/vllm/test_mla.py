# SPDX-License-Identifier: Apache-2.0
"""vLLM end to end with latent attention through rocmforge, against Transformers' models in fp32: chunked prefill,
cached prefixes, preemption, drafts, tensor parallel ranks; exact counts of launches, and planted faults.

Each engine serves several tests, or several workloads of one: a start takes as long as all that comes after it.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from vllm.model_executor.layers.attention.mla_attention import MLACommonMetadataBuilder

import rocmforge_plugin
from rocmforge_plugin.vllm.mla import impl as mla_impl
from rocmforge_plugin.vllm.mla import prefill as mla_prefill
from rocmforge_plugin.vllm.position import latent

from .engines import checkpoint, engine, greedy, largest, metric, prompt, run, score
from .oracle import Answer, log_probabilities, model_of, transformers_says
from .test_mla_steps import changed, rope_first, sums_of_base_two, values_off_by_one

LAYERS, STEPS = 2, 20
PROMPTS = [prompt(10), prompt(3, 7), prompt(61, 3)]
CONTEXT_ROWS = 32  # of a chunk of context; vLLM's own choice holds everything here
SETTINGS: dict[str, Any] = {"max_model_len": 160, "max_num_batched_tokens": 32, "block_size": 32}
ROUNDING = 5e-4  # of fp32 log probabilities
FLASH = {"num_attention_heads": 5}  # GLM-4.7-Flash at tensor parallel size 4


class Counted(NamedTuple):
    """A workload's answer and its launches, and how often vLLM's drafts were right."""

    answer: Answer
    launches: dict[str, int]
    accepted: float = 0

    def ran(self, part: str) -> int:
        """Launches of the kernels with `part` in their names."""
        return sum(count for name, count in self.launches.items() if part in name)


def answer(llm: Any) -> Counted:
    """Greedy tokens, and then the prompts' scores; launches of the former."""
    rocmforge_plugin.reset_launches()
    tokens = [sequence.tokens for sequence in greedy(llm, PROMPTS, max_tokens=STEPS)]
    launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
    return Counted(Answer(tokens, scores(llm)), launches)


def scores(llm: Any) -> list[list[float]]:
    return score(llm, [one["prompt_token_ids"] for one in PROMPTS])


@cache
def truth(kind: str, dtype: torch.dtype = torch.float32, **shape: int) -> Answer:
    """The same from Transformers' model."""
    return transformers_says(checkpoint(kind, **shape), PROMPTS, STEPS, dtype)


def differences(ours: list[list[float]], theirs: list[list[float]]) -> list[float]:
    return [abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]


def assert_same(ours: Answer, theirs: Answer) -> None:
    assert ours.tokens == theirs.tokens
    assert all(len(set(tokens)) > STEPS // 4 for tokens in ours.tokens), "a text that says the same all over"
    assert largest(differences(ours.scores, theirs.scores)) < ROUNDING


@pytest.fixture
def small_chunks(monkeypatch):
    """Context comes in chunks of few rows, so that requests have several and their results are joined."""
    monkeypatch.setattr(
        MLACommonMetadataBuilder, "determine_chunked_prefill_workspace_size", staticmethod(lambda config: CONTEXT_ROWS)
    )


@pytest.fixture(scope="module")
def flash():
    """GLM-4.7-Flash in an engine of 15 pages, with the user's own settings where vLLM's CPU kernel has none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            MLACommonMetadataBuilder,
            "determine_chunked_prefill_workspace_size",
            staticmethod(lambda config: CONTEXT_ROWS),
        )
        settings = SETTINGS | {"block_size": 16, "num_gpu_blocks_override": 16, "enable_prefix_caching": True}
        with engine(checkpoint("glm4_moe_lite", **FLASH), "rocmforge", "float32", **settings) as llm:
            yield llm


def test_what_the_user_set_counts(flash):
    """vLLM's CPU platform would have none of these with latent attention, nor the pages of `test_other_models`."""
    config = flash.llm_engine.vllm_config
    assert config.scheduler_config.enable_chunked_prefill and config.cache_config.enable_prefix_caching
    assert config.scheduler_config.max_num_batched_tokens == 32
    layers = flash.apply_model(
        lambda model: {
            (one.attn_backend.get_name(), one.prefill_backend.get_name(), type(one.impl).__name__)
            for one in model.modules()
            if hasattr(one, "attn_backend")
        }
    )[0]
    assert layers == {("ROCMFORGE", "ROCMFORGE", "RocmForgeMLAImpl")}


def test_tokens_scores_and_launches(flash):
    """74 prompt tokens by 32 a step, decodes beside them: 10 + 3 + 19, 2 + 30, 2 + 12, then 19 steps more."""
    flash.reset_prefix_cache()
    found = answer(flash)
    assert_same(found.answer, truth("glm4_moe_lite", **FLASH))
    steps, with_prompts, with_decodes = 22, 3, 21
    chunks = 1 + 2  # of the third prompt's context, 19 and 49 tokens by CONTEXT_ROWS
    plans = {"attention_plan": with_decodes + with_prompts + chunks}
    counted: Counter[str] = Counter()
    for name, count in found.launches.items():
        counted[next(part for part in PARTS if name.startswith(part))] += count
    assert counted["rotary_latent_kv_write"] == LAYERS * steps  # and none of rotary or the write by itself
    assert counted["attention_plan"] == plans["attention_plan"]
    assert found.ran("attention_decode") == LAYERS * with_decodes
    assert found.ran("split") == LAYERS * (with_prompts + chunks)


PARTS = ("attention_plan", "attention_prefill", "attention_decode", "attention_combine", "rotary_latent_kv_write")


def test_cached_prefixes_are_context(flash):
    """Prompts that begin with what is in the cache: all of it is context of their first chunk."""
    flash.reset_prefix_cache()
    shared = prompt(96)["prompt_token_ids"]
    texts = [shared + prompt(n, 40 * n)["prompt_token_ids"] for n in (1, 33)]
    greedy(flash, [{"prompt_token_ids": shared}], max_tokens=1)
    before = metric(flash, "vllm:prefix_cache_hits")
    found = greedy(flash, [{"prompt_token_ids": text} for text in texts], max_tokens=4)
    assert metric(flash, "vllm:prefix_cache_hits") - before >= 80 * len(texts)
    model = model_of(checkpoint("glm4_moe_lite", **FLASH), torch.float32)
    for text, sequence in zip(texts, found, strict=True):
        right = log_probabilities(model, torch.tensor([text + sequence.tokens]))[-len(sequence.tokens) :]
        assert largest(abs(a - b) for a, b in zip(right, sequence.logprobs, strict=True)) < ROUNDING


def test_preemption_recomputes_the_same_tokens(flash):
    """Requests that grow beyond the cache: some are thrown out and come back, decodes and all, as prompts."""
    flash.reset_prefix_cache()
    before = metric(flash, "vllm:num_preemptions")
    prompts = [prompt(5, index) for index in range(6)]
    found = greedy(flash, prompts, max_tokens=40)
    assert metric(flash, "vllm:num_preemptions") > before
    model = model_of(checkpoint("glm4_moe_lite", **FLASH), torch.float32)
    for one, sequence in zip(prompts, found, strict=True):
        text = one["prompt_token_ids"] + sequence.tokens
        right = log_probabilities(model, torch.tensor([text]))[-len(sequence.tokens) :]
        assert largest(abs(a - b) for a, b in zip(right, sequence.logprobs, strict=True)) < ROUNDING


FAULTS = {
    "rope slice first": (mla_impl, "latent_attention", rope_first),
    "values off by one": (mla_impl, "latent_attention", values_off_by_one),
    "sums of base two": (mla_prefill, "varlen_attention", sums_of_base_two),
}


def test_faults_change_the_text(flash):
    """Each by more than rounding, and without them all is as before."""

    def begins() -> tuple[list[list[int]], list[list[float]]]:
        flash.reset_prefix_cache()
        found = greedy(flash, PROMPTS, max_tokens=4)
        return [one.tokens for one in found], [one.logprobs for one in found]

    tokens, logprobs = begins()
    assert tokens == [one[:4] for one in truth("glm4_moe_lite", **FLASH).tokens]
    moved = {}
    for name, (module, op, fault) in FAULTS.items():
        with pytest.MonkeyPatch.context() as patch:
            changed(module, op, fault, patch)
            moved[name] = largest(differences(begins()[1], logprobs))
    assert min(moved.values()) > 20 * ROUNDING, moved
    healed = begins()
    assert healed[0] == tokens and largest(differences(healed[1], logprobs)) < ROUNDING


@pytest.mark.parametrize(
    ("kind", "shape", "compiled"),
    [
        ("deepseek_v2", {}, False),
        ("deepseek_v3", {"num_attention_heads": 8}, True),
        ("mistral4", {"num_attention_heads": 8}, False),
    ],
)
def test_other_models(kind, shape, compiled, small_chunks, monkeypatch):
    """Without a query's low rank; with YaRN, and compiled by inductor; with a latent of 256 and scaled queries."""
    monkeypatch.setenv("VLLM_CPU_CI_ENV", "0")  # where it is set, what is compiled goes without inductor
    with engine(checkpoint(kind, **shape), "rocmforge", "float32", enforce_eager=not compiled, **SETTINGS) as llm:
        found = answer(llm)
        assert llm.llm_engine.vllm_config.cache_config.block_size == 32
    assert_same(found.answer, truth(kind, **shape))
    for part in ("decode", "split"):
        assert found.ran(part) >= LAYERS
    writes = {name: count for name, count in found.launches.items() if "rotary" in name or "latent_kv_write" in name}
    assert writes == {"rotary_latent_kv_write_v16_float": LAYERS * 22}


def test_two_launches_where_one_is_not_legal(monkeypatch):
    """vLLM's own forward, the rotary launch and the write by itself: the same text."""
    monkeypatch.setattr(latent, "obstacle", lambda module, config: "a test's")
    with engine(checkpoint("deepseek_v2"), "rocmforge", "float32", **SETTINGS) as llm:
        found = answer(llm)
    assert_same(found.answer, truth("deepseek_v2"))
    writes = {name: count for name, count in found.launches.items() if "rotary" in name or "latent_kv_write" in name}
    assert writes == {"rotary_v16_float": LAYERS * 22, "latent_kv_write_v16_float": LAYERS * 22}


def test_bf16_errors_are_rounding():
    """As close to fp32 as Transformers' own bf16."""
    exact = truth("glm4_moe_lite", **FLASH).scores
    with engine(checkpoint("glm4_moe_lite", **FLASH), "rocmforge", "bfloat16", **SETTINGS) as llm:
        found = answer(llm)
    assert found.ran("decode") and found.ran("split") and found.ran("latent_kv_write_v16_bf16")
    ours = differences(found.answer.scores, exact)
    theirs = differences(truth("glm4_moe_lite", torch.bfloat16, **FLASH).scores, exact)
    assert sum(ours) <= 2 * sum(theirs) + 1e-5
    assert largest(ours) <= 2 * largest(theirs) + 1e-5


def test_dense_attention_of_the_same_weights(monkeypatch):
    """VLLM_MLA_DISABLE=1: vLLM's other model class, keys and values in the cache, rocmforge's dense kernels."""
    monkeypatch.setenv("VLLM_MLA_DISABLE", "1")
    with engine(checkpoint("glm4_moe_lite", **FLASH), "rocmforge", "float32", **SETTINGS) as llm:
        found = answer(llm)
    assert_same(found.answer, truth("glm4_moe_lite", **FLASH))
    assert found.ran("attention_decode") and not found.ran("latent") and not found.ran("split")


def test_drafts_of_the_models_own_layer(small_chunks):
    """MTP: the drafter's layer is latent as well, and gets the backend without being named."""
    shape = {"mtp_layers": 1}
    drafts = {"speculative_config": {"method": "mtp", "num_speculative_tokens": 2}}
    with engine(checkpoint("glm4_moe_lite", **shape), "rocmforge", "float32", **SETTINGS, **drafts) as llm:
        found = answer(llm)
        proposed = metric(llm, "vllm:spec_decode_num_draft_tokens")
        assert llm.llm_engine.vllm_config.scheduler_config.enable_chunked_prefill
    assert_same(found.answer, truth("glm4_moe_lite", **shape))
    assert proposed > 2 * STEPS
    # In each step the drafter's layer runs too, for each of the tokens it proposes.
    steps, rest = divmod(found.ran("latent_kv_write"), LAYERS + 2)
    assert rest == 0 and steps >= STEPS // 3
    assert found.ran("attention_decode") > (LAYERS + 1) * (steps - 3)


@pytest.fixture(scope="module")
def apart():
    """A process beside this one: n-gram drafts load a library that vLLM's next engine in the process stumbles over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # two ranks on one NUMA node, which do not wait in turns
        patch.setenv("OMP_NUM_THREADS", "1")
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            yield pool


@pytest.fixture(scope="module")
def started(apart) -> dict[str, Future]:
    """The runs of that process; ranks first."""
    ranks = {
        "tensor_parallel_size": 2,
        "distributed_executor_backend": "mp",
        "worker_extension_cls": "rocmforge_plugin.vllm.report.LaunchCounts",
    }
    ngram = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3, "prompt_lookup_min": 1}
    model, flash = checkpoint("kimi_k2", num_attention_heads=8), checkpoint("glm4_moe_lite", **FLASH)
    return {
        "ranks": apart.submit(run, model, "rocmforge", "float32", on_ranks, SETTINGS | ranks),
        "ngram": apart.submit(run, flash, "rocmforge", "float32", drafted, SETTINGS | {"speculative_config": ngram}),
    }


def on_ranks(llm: Any) -> tuple[Counted, list[dict[str, int]]]:
    """The answer, and each worker's launches."""
    return answer(llm), llm.collective_rpc("rocmforge_launches")


def drafted(llm: Any) -> Counted:
    """The answer, and how many drafts were taken."""
    found = answer(llm)
    return found._replace(accepted=metric(llm, "vllm:spec_decode_num_accepted_tokens"))


def test_tensor_parallel_ranks(started):
    """Kimi-K2, whose heads two ranks divide; each has the whole cache, and launches as much."""
    found, workers = started["ranks"].result().result
    assert_same(found.answer, truth("kimi_k2", num_attention_heads=8))
    assert len(workers) == 2 and workers[0] == workers[1]
    assert sum(count for name, count in workers[0].items() if "latent_kv_write" in name) >= LAYERS * 22


def test_drafts_of_the_prompts_own_words(started):
    """n-grams: verifications of one to four tokens side by side, and some of them right."""
    found = started["ngram"].result().result
    assert_same(found.answer, truth("glm4_moe_lite", **FLASH))
    assert found.accepted > 0
    assert LAYERS * 10 < found.ran("latent_kv_write") < LAYERS * 22
