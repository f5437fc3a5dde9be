# SPDX-License-Identifier: Apache-2.0
"""Models whose attention caps its scores, biases them (ALiBi), or has heads that few models have: rocmforge beside
vLLM's own CPU kernels, the same engine and the same requests, in fp32.

What a model does to its scores is then left out, or done wrong, in the running engine: a comparison that this passes
proves nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import rocmforge_plugin
from tests.vllm.engines import Run, checkpoint, engine, greedy, largest, prompt, run_ours, score
from tests.vllm.oracle import transformers_says
from tools.dense_checkpoints import SOFT_CAP

# On both sides of the 32-token pages' edges, and one that is prefilled in chunks of at most 64 beside running decodes.
PROMPTS = [prompt(length, start) for start, length in enumerate((1, 33, 64, 150))]
TOKENS = 8
TOLERANCE = 2e-3
LAYERS = 2


def continue_and_score(llm):
    """Greedy continuations, and the log probabilities of given texts."""
    return greedy(llm, PROMPTS, TOKENS), score(llm, [row["prompt_token_ids"] for row in PROMPTS[1:]])


def distance(ours, theirs) -> float:
    """The largest difference of log probabilities; 1 where a greedy token differs."""
    (continued, scored), (right, right_scores) = ours, theirs
    if [one.tokens for one in continued] != [one.tokens for one in right]:
        return 1.0
    pairs = [(one.logprobs, other.logprobs) for one, other in zip(continued, right, strict=True)]
    pairs += list(zip(scored, right_scores, strict=True))
    return largest(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))


def layers_of(llm) -> list[Any]:
    """The implementations of the model's attention layers."""
    return llm.apply_model(lambda model: [module.impl for module in model.modules() if hasattr(module, "impl")])[0]


@contextmanager
def changed(llm, change: Callable[[Any], None], back: Callable[[Any], None]) -> Iterator[None]:
    """The engine with `change` done to every layer."""
    for impl in layers_of(llm):
        change(impl)
    try:
        yield
    finally:
        for impl in layers_of(llm):
            back(impl)


def without_cap(impl):
    impl.score, impl.logits_soft_cap, impl._number = "plain", 0.0, -1


def with_cap(impl):
    impl.score, impl.logits_soft_cap, impl._number = "capped", SOFT_CAP, -1


def next_heads_slope(impl):
    impl.alibi_slopes.copy_(impl.alibi_slopes.roll(1))


def own_slope(impl):
    impl.alibi_slopes.copy_(impl.alibi_slopes.roll(-1))


def assert_ran(run: Run, part: str) -> None:
    """150 tokens take 3 chunks of at most 64, and then come 7 more steps: each layer runs in every one of them."""
    assert run.ran("attention_prefill") == run.ran(f"attention_prefill_float_{part}") >= LAYERS * 3
    assert run.ran("attention_decode") >= LAYERS * 7
    assert all(part in name for name in run.launches if name.startswith("attention_decode"))
    assert run.ran("kv_write") >= LAYERS * 10


@pytest.mark.parametrize(
    ("kind", "shape", "part", "fault"),
    [
        ("gemma2", {}, "d128_narrow_capped", (without_cap, with_cap)),
        ("bloom", {"num_attention_heads": 8}, "d64_narrow_biased", (next_heads_slope, own_slope)),
        ("falcon_rw", {"hidden_size": 384}, "d128_narrow_biased", (next_heads_slope, own_slope)),
    ],
)
def test_scores(kind, shape, part, fault, reference):
    """Gemma-2's soft cap, with a window in every second layer; ALiBi as Bloom's and, scaled, as Falcon-RW's."""
    theirs = reference.start(checkpoint(kind, **shape), continue_and_score)
    with engine(checkpoint(kind, **shape), "rocmforge", "float32") as llm:
        ours = continue_and_score(llm)
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        with changed(llm, *fault):
            wrong = continue_and_score(llm)
        again = continue_and_score(llm)
    right = theirs.result().result
    assert_ran(Run(ours, launches), part)
    assert distance(ours, right) < TOLERANCE
    assert distance(wrong, right) > 10 * TOLERANCE
    assert distance(again, right) < TOLERANCE


def test_transformers_backend(reference):
    """A soft cap that comes with Transformers' model instead of vLLM's."""
    theirs = reference.start(checkpoint("gemma2"), continue_and_score)
    ours = run_ours(checkpoint("gemma2"), continue_and_score, without=("rotary",), model_impl="transformers")
    assert_ran(ours, "d128_narrow_capped")
    assert distance(ours.result, theirs.result().result) < TOLERANCE


def test_71_query_heads_of_one_kv_head(reference):
    """As many as Falcon-7B has, which no tile divides, and which are too many rows for the kernels of decode steps."""
    model = checkpoint("falcon", hidden_size=71 * 32, num_attention_heads=71, num_hidden_layers=1)
    ours, theirs = reference.both(model, continue_and_score, without=("attention_decode",))
    assert ours.ran("attention_prefill") == ours.ran("attention_prefill_float_d128_narrow") >= 10
    assert distance(ours.result, theirs.result) < TOLERANCE


@pytest.mark.parametrize(
    ("kind", "shape", "part"),
    [
        ("llama", {"head_dim": 40}, "d128_narrow"),
        ("llama", {"head_dim": 72, "num_attention_heads": 8}, "d128_narrow"),
        ("llama", {"head_dim": 104, "num_key_value_heads": 1}, "d128_narrow"),
        ("bloom", {"hidden_size": 240, "num_attention_heads": 6}, "d64_narrow_biased"),
    ],
)
def test_heads_that_run_in_kernels_for_longer_ones(kind, shape, part):
    """Their sizes are multiples of 8 that vLLM's own CPU kernels have not, so Transformers is what is right."""
    model = checkpoint(kind, **shape)
    ours = run_ours(model, continue_and_score, without=() if kind == "llama" else ("rotary",))
    assert_ran(ours, part)
    right = transformers_says(model, PROMPTS, TOKENS)
    continued, scored = ours.result
    assert [one.tokens for one in continued] == right.tokens
    for row, one in zip(scored, right.scores[1:], strict=True):
        assert largest(abs(a - b) for a, b in zip(row, one, strict=True)) < TOLERANCE
