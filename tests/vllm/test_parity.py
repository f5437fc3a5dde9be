# SPDX-License-Identifier: Apache-2.0
"""vLLM end to end on tiny checkpoints: rocmforge against vLLM's own CPU attention, same engine, same requests.

In fp32 the two must agree token for token. In bf16 they round differently, so there each is measured against fp32: an
error of rocmforge's may be as large as CPU_ATTN's, within a factor of two.
"""
import statistics
from functools import cache
from typing import NamedTuple

import pytest
import torch

from tests.vllm.engines import LENGTHS, checkpoint, engine, greedy, launched, metric, prompt, sample, score

KINDS = ("glm4", "glm", "chatglm", "glm4_moe", "llama")
ATTENTION = ("attention",)
KV_WRITE = ("kv_write", "rotary_kv_write", "norm_rotary_kv_write")
LAYERS = 2
PROMPTS = [prompt(length, start) for start, length in enumerate(LENGTHS)]


class Reference(NamedTuple):
    """What the other backend made of PROMPTS."""

    continued: list
    texts: list
    scores: list


def assert_same(ours, theirs, tolerance=2e-3):
    """Equal tokens, and logprobs that differ by fp32 rounding only."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.tokens == other.tokens
        assert max(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < tolerance


@pytest.fixture(scope="module")
def fp32_reference():
    """Function: CPU_ATTN's fp32 results for a model, computed once: continuations of PROMPTS and the texts' scores."""

    @cache
    def reference(kind):
        with engine(checkpoint(kind), "CPU_ATTN", "float32") as llm:
            continued = greedy(llm, PROMPTS)
            texts = [row["prompt_token_ids"] + sequence.tokens for row, sequence in zip(PROMPTS, continued)]
            scores = score(llm, texts)
            assert launched(*ATTENTION) == 0
        return Reference(continued, texts, scores)

    return reference


@pytest.mark.parametrize("kind", KINDS)
def test_fp32_tokens_equal(kind, fp32_reference):
    """Mixed lengths across page edges, prefilled in chunks of at most 64 tokens beside running decodes."""
    expected = fp32_reference(kind).continued
    with engine(checkpoint(kind), "rocmforge", "float32") as llm:
        ours = greedy(llm, PROMPTS)
        # 200 tokens take 4 chunks of at most 64, and then come 15 more steps: each layer runs in every one of them.
        assert launched(*ATTENTION) >= LAYERS * (3 + 16)
        assert launched(*KV_WRITE) >= LAYERS * (3 + 16)
    assert_same(ours, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_errors_are_rounding(kind, fp32_reference):
    """Prompt and decode logprobs of one given text: as close to fp32 as CPU_ATTN's are."""
    _, texts, truth = fp32_reference(kind)
    errors, decoded = {}, {}
    for backend in ("CPU_ATTN", "rocmforge"):
        with engine(checkpoint(kind), backend, "bfloat16") as llm:
            scores = score(llm, texts)
            errors[backend] = [abs(a - b) for row, right in zip(scores, truth) for a, b in zip(row, right, strict=True)]
            decoded[backend] = greedy(llm, PROMPTS)
            assert bool(launched(*ATTENTION)) == (backend == "rocmforge")
    ours, host = errors["rocmforge"], errors["CPU_ATTN"]
    assert statistics.mean(ours) <= 2 * statistics.mean(host) + 1e-5
    assert max(ours) <= 2 * max(host) + 1e-5
    # The decode path: until a near tie first sends the two texts apart, the scores of the same tokens agree as closely.
    apart = []
    for one, other in zip(decoded["rocmforge"], decoded["CPU_ATTN"]):
        for a, b, p, q in zip(one.tokens, other.tokens, one.logprobs, other.logprobs):
            apart.append(abs(p - q))
            if a != b:
                break
    assert len(apart) >= len(PROMPTS) * 4
    assert statistics.mean(apart) <= 2 * statistics.mean(host) * 2 + 1e-5
    assert max(apart) <= 2 * max(host) * 2 + 1e-5


def test_prefix_cache_sampling_and_abort():
    """One engine each: cached prefixes, n > 1 samples that share a prompt, and requests aborted half way."""
    shared = prompt(96)["prompt_token_ids"]
    tails = [{"prompt_token_ids": shared + prompt(n, 40 * n)["prompt_token_ids"]} for n in (1, 7, 32, 40)]
    results = {}
    for backend in ("CPU_ATTN", "rocmforge"):
        with engine(checkpoint("glm4"), backend, "float32", enable_prefix_caching=True) as llm:
            first = greedy(llm, [{"prompt_token_ids": shared}])
            extended = greedy(llm, tails)
            hits = metric(llm, "vllm:prefix_cache_hits")
            assert hits >= 96 * len(tails)
            torch.manual_seed(7)  # the engine draws from this process's generator
            drawn = sample(llm, PROMPTS[3:6], temperature=0.9, n=3)
            assert len({tuple(one.tokens) for one in drawn[0]}) > 1
            results[backend] = [*first, *extended, *(one for group in drawn for one in group)]
            results[backend] += run_with_aborts(llm)
            counted = launched(*ATTENTION)
        assert bool(counted) == (backend == "rocmforge")
    assert_same(results["rocmforge"], results["CPU_ATTN"])


def run_with_aborts(llm):
    """Greedy results of the requests that stay while every other one is aborted after five steps."""
    from vllm import SamplingParams

    from tests.vllm.engines import Sequence

    core = llm.llm_engine
    names = [f"request-{index}" for index in range(len(PROMPTS))]
    for name, text in zip(names, PROMPTS):
        core.add_request(name, text, SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, logprobs=0))
    finished, steps = {}, 0
    while core.has_unfinished_requests():
        for output in core.step():
            if output.finished:
                finished[output.request_id] = output.outputs[0]
        steps += 1
        if steps == 5:
            core.abort_request(names[::2])
    kept = [name for name in names[1::2]]
    assert set(kept) <= set(finished)
    return [Sequence(list(finished[name].token_ids),
                     [step[token].logprob for token, step in zip(finished[name].token_ids, finished[name].logprobs)])
            for name in kept]


def test_preemption_recomputes_the_same_tokens():
    """A cache of 15 pages for eight growing requests: some are thrown out and come back."""
    prompts = [prompt(40 + index, index) for index in range(8)]
    results = {}
    for backend in ("CPU_ATTN", "rocmforge"):
        settings = {"num_gpu_blocks_override": 16} if backend == "rocmforge" else {}
        with engine(checkpoint("glm4"), backend, "float32", max_model_len=160, **settings) as llm:
            results[backend] = greedy(llm, prompts, max_tokens=48)
            if backend == "rocmforge":
                assert metric(llm, "vllm:num_preemptions") > 0
                assert launched(*ATTENTION) > 0
    assert_same(results["rocmforge"], results["CPU_ATTN"])


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim", "block"), [
    (8, 8, 64, 16), (24, 1, 64, 32), (6, 2, 80, 64), (4, 2, 96, 32), (16, 1, 128, 16), (4, 4, 192, 128), (4, 2, 256, 32)])
def test_geometries(heads, kv_heads, head_dim, block):
    """Head sizes, GQA ratios 1 to 24 and page sizes; the reference cannot use pages of 16, nor need it."""
    model = checkpoint("glm4", num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim)
    results = {}
    for backend, size in (("CPU_ATTN", max(block, 32)), ("rocmforge", block)):
        with engine(model, backend, "float32", block_size=size) as llm:
            results[backend] = greedy(llm, PROMPTS)
            assert bool(launched(*ATTENTION)) == (backend == "rocmforge")
    assert_same(results["rocmforge"], results["CPU_ATTN"])


@pytest.mark.parametrize("window", [1, 20, 32, 100])
def test_sliding_window(window):
    """A model whose layers see only their newest keys; pages out of sight are given back while it runs."""
    model = checkpoint("mistral", sliding_window=window)
    results = {}
    for backend in ("CPU_ATTN", "rocmforge"):
        with engine(model, backend, "float32") as llm:
            results[backend] = greedy(llm, PROMPTS)
            assert bool(launched(*ATTENTION)) == (backend == "rocmforge")
    assert_same(results["rocmforge"], results["CPU_ATTN"])


@pytest.mark.parametrize("layout", ["LBNHC", "LBHNC", "BLHNC"])
def test_every_page_layout(layout, fp32_reference, monkeypatch):
    """The engine's choice of the cache's physical order only changes strides."""
    monkeypatch.setenv("VLLM_KV_CACHE_LAYOUT", layout)
    with engine(checkpoint("glm4"), "rocmforge", "float32") as llm:
        ours = greedy(llm, PROMPTS)
        assert launched(*ATTENTION) > 0
    assert_same(ours, fp32_reference("glm4").continued)


def test_refusals_reach_the_user():
    """A setting that the kernels cannot serve ends the start with its name and what works."""
    with pytest.raises(Exception, match="--kv-cache-dtype") as raised, \
            engine(checkpoint("glm4"), "rocmforge", "bfloat16", kv_cache_dtype="fp8"):
        pytest.fail("the engine started")
    assert "auto" in str(raised.value)


def test_attention_config_names_the_backend():
    """`attention_config={"backend": ...}` selects it as the flag does."""
    with engine(checkpoint("glm4"), None, "float32", attention_config={"backend": "rocmforge"}) as llm:
        greedy(llm, PROMPTS[:2], max_tokens=2)
        assert launched(*ATTENTION) > 0 and launched(*KV_WRITE) > 0
