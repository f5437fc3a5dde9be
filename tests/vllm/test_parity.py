# SPDX-License-Identifier: Apache-2.0
"""vLLM end to end on tiny checkpoints: rocmforge against vLLM's own CPU kernels, same engine, same requests.

In fp32 the two must agree token for token. In bf16 they round differently, so there each is measured against fp32: an
error of rocmforge's may be as large as the host's, within a factor of two.
"""

import statistics
from functools import cache

import pytest
import torch

from tests.vllm.engines import (
    LENGTHS,
    checkpoint,
    engine,
    generated,
    greedy,
    largest,
    metric,
    prompt,
    run_ours,
    sample,
    score,
)

KINDS = ("glm4", "glm", "chatglm", "glm4_moe", "llama")
LAYERS = 2
PROMPTS = [prompt(length, start) for start, length in enumerate(LENGTHS)]


def continue_prompts(llm):
    """16 greedy tokens for each of PROMPTS."""
    return greedy(llm, PROMPTS)


def continue_and_score(llm):
    """The same, and the log probabilities of the resulting texts."""
    continued = continue_prompts(llm)
    return continued, score(llm, texts_of(continued))


def texts_of(continued):
    """Prompts with their continuations."""
    return [row["prompt_token_ids"] + sequence.tokens for row, sequence in zip(PROMPTS, continued, strict=True)]


def assert_same(ours, theirs, tolerance=2e-3):
    """Equal tokens, and logprobs that differ by fp32 rounding only."""
    for one, other in zip(ours, theirs, strict=True):
        assert one.tokens == other.tokens
        assert largest(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < tolerance


@pytest.fixture(scope="module")
def truth(reference):
    """Function: the host's fp32 continuations and scores for a model, computed once."""

    @cache
    def compute(kind):
        found = reference.start(checkpoint(kind), continue_and_score).result()
        assert found.launches == {}
        return found.result

    return compute


@pytest.mark.parametrize("kind", KINDS)
def test_fp32_tokens_equal(kind, truth):
    """Mixed lengths across page edges, prefilled in chunks of at most 64 tokens beside running decodes."""
    ours = run_ours(checkpoint(kind), continue_and_score)
    assert_same(ours.result[0], truth(kind)[0])
    for row, right in zip(ours.result[1], truth(kind)[1], strict=True):
        assert largest(abs(a - b) for a, b in zip(row, right, strict=True)) < 2e-3
    # 200 tokens take 4 chunks of at most 64, and then come 15 more steps: each layer runs in every one of them.
    assert ours.ran("attention_prefill") >= LAYERS * 4
    assert ours.ran("attention_decode") >= LAYERS * 15
    assert ours.ran("kv_write") >= LAYERS * 19
    assert ours.ran("rotary") >= LAYERS * 19


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_errors_are_rounding(kind, truth, reference):
    """Prompt and decode logprobs of one given text: as close to fp32 as the host's are."""
    continued, exact = truth(kind)
    ours, theirs = reference.both(checkpoint(kind), ScoreAndContinue(texts_of(continued)), "bfloat16")
    errors = [
        [abs(a - b) for row, right in zip(side.result[0], exact, strict=True) for a, b in zip(row, right, strict=True)]
        for side in (ours, theirs)
    ]
    mean, most = statistics.mean(errors[1]), largest(errors[1])
    assert statistics.mean(errors[0]) <= 2 * mean + 1e-5
    assert largest(errors[0]) <= 2 * most + 1e-5
    # The decode path: until a near tie first sends the two texts apart, the scores of the same tokens agree as closely.
    apart = []
    for one, other in zip(ours.result[1], theirs.result[1], strict=True):
        for a, b, p, q in zip(one.tokens, other.tokens, one.logprobs, other.logprobs, strict=True):
            apart.append(abs(p - q))
            if a != b:
                break
    assert len(apart) >= len(PROMPTS) * 4
    assert statistics.mean(apart) <= 4 * mean + 1e-5
    assert largest(apart) <= 4 * most + 1e-5


class ScoreAndContinue:
    """Workload: score given texts, then continue PROMPTS."""

    def __init__(self, texts):
        self.texts = texts

    def __call__(self, llm):
        return score(llm, self.texts), greedy(llm, PROMPTS)


def prefixes_samples_aborts(llm):
    """Cached prefixes, n > 1 samples that share a prompt, and requests aborted half way."""
    shared = prompt(96)["prompt_token_ids"]
    tails = [{"prompt_token_ids": shared + prompt(n, 40 * n)["prompt_token_ids"]} for n in (1, 7, 32, 40)]
    results = greedy(llm, [{"prompt_token_ids": shared}]) + greedy(llm, tails)
    assert metric(llm, "vllm:prefix_cache_hits") >= 96 * len(tails)
    torch.manual_seed(7)  # the engine draws from this process's generator
    drawn = sample(llm, PROMPTS[3:6], temperature=0.9, n=3)
    assert len({tuple(one.tokens) for one in drawn[0]}) > 1
    return results + [one for group in drawn for one in group] + abort_half(llm)


def abort_half(llm):
    """Greedy results of the requests that stay while every other one is aborted after five steps."""
    from vllm import SamplingParams

    core = llm.llm_engine
    names = [f"request-{index}" for index in range(len(PROMPTS))]
    for name, text in zip(names, PROMPTS, strict=True):
        core.add_request(name, text, SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, logprobs=0))
    finished, steps = {}, 0
    while core.has_unfinished_requests():
        for output in core.step():
            if output.finished:
                finished[output.request_id] = output.outputs[0]
        steps += 1
        if steps == 5:
            core.abort_request(names[::2])
    return [generated(finished[name]) for name in names[1::2]]


def test_prefix_cache_sampling_and_abort(reference):
    ours, theirs = reference.both(checkpoint("glm4"), prefixes_samples_aborts, enable_prefix_caching=True)
    assert_same(ours.result, theirs.result)


def growing_requests(llm):
    """Eight requests that grow by 48 tokens, and how often one was thrown out."""
    return (
        greedy(llm, [prompt(40 + index, index) for index in range(8)], max_tokens=48),
        metric(llm, "vllm:num_preemptions"),
    )


def test_preemption_recomputes_the_same_tokens(reference):
    """A cache of 15 pages is too small for eight requests: some are thrown out and come back."""
    ours, theirs = reference.both(
        checkpoint("glm4"), growing_requests, max_model_len=160, own_settings={"num_gpu_blocks_override": 16}
    )
    assert ours.result[1] > 0 and theirs.result[1] == 0
    assert_same(ours.result[0], theirs.result[0])


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "block"),
    [
        (8, 8, 64, 16),
        (24, 1, 64, 32),
        (6, 2, 80, 64),
        (4, 2, 96, 32),
        (16, 1, 128, 16),
        (4, 4, 192, 128),
        (4, 2, 256, 32),
    ],
)
def test_geometries(heads, kv_heads, head_dim, block, reference):
    """Head sizes, GQA ratios 1 to 24 and page sizes; the host cannot use pages of 16, nor need it."""
    model = checkpoint("glm4", num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=head_dim)
    ours, theirs = reference.both(model, continue_prompts, own_settings={"block_size": block})
    assert_same(ours.result, theirs.result)


@pytest.mark.parametrize("window", [1, 20, 32, 100])
def test_sliding_window(window, reference):
    """A model whose layers see only their newest keys; pages out of sight are given back while it runs."""
    ours, theirs = reference.both(checkpoint("mistral", sliding_window=window), continue_prompts)
    assert_same(ours.result, theirs.result)


@pytest.mark.parametrize("layout", ["LBNHC", "LBHNC", "BLHNC"])
def test_every_page_layout(layout, truth, monkeypatch):
    """The engine's choice of the cache's physical order only changes strides."""
    expected = truth("glm4")[0]
    monkeypatch.setenv("VLLM_KV_CACHE_LAYOUT", layout)
    assert_same(run_ours(checkpoint("glm4"), continue_prompts).result, expected)


def test_compiled_model(truth):
    """torch.compile around the kernels, as vLLM does it by default."""
    expected = truth("glm4")[0]
    assert_same(run_ours(checkpoint("glm4"), continue_prompts, enforce_eager=False).result, expected)


def test_refusals_reach_the_user():
    """A setting that the kernels cannot serve ends the start with its name and what works."""
    with (
        pytest.raises(Exception, match="--kv-cache-dtype") as raised,
        engine(checkpoint("glm4"), "rocmforge", "bfloat16", kv_cache_dtype="fp8"),
    ):
        pytest.fail("the engine started")
    assert "use --kv-cache-dtype bfloat16" in str(raised.value)


def test_attention_config_names_the_backend(truth):
    """`attention_config={"backend": ...}` selects it as the flag does."""
    expected = truth("glm4")[0]
    ours = run_ours(
        checkpoint("glm4"), continue_prompts, attention_backend=None, attention_config={"backend": "rocmforge"}
    )
    assert_same(ours.result, expected)
