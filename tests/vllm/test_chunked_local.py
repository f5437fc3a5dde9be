# SPDX-License-Identifier: Apache-2.0
"""Chunked local attention (Llama 4): vLLM cuts a request into one for each chunk its queries lie in, before it asks the
builder, so that a step has more requests than max_num_seqs.
"""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.model_executor.layers.attention.chunked_local_attention import create_chunked_local_attention_backend
from vllm.v1.attention.backends.utils import make_local_attention_virtual_batches

import rocmforge_plugin
from rocmforge_plugin.vllm.backend.backend import RocmForgeBackend
from rocmforge_plugin.vllm.backend.builder import most_requests
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl

from .batches import BLOCK, KV_HEADS, SIZE, batch, cache, config, spec
from .engines import checkpoint, engine, greedy, largest, prompt

CHUNK, MAX_NUM_SEQS, MAX_TOKENS, PAGES = 64, 2, 256, 64
HEADS = 4
SCALE = SIZE**-0.5


def chunked_reference(query: torch.Tensor, pages: torch.Tensor, step) -> torch.Tensor:
    """In fp64 from the step as the scheduler made it: a query at p sees the keys from p // CHUNK * CHUNK to p."""
    out = torch.zeros_like(query, dtype=torch.float64)
    for request, length in enumerate(step.seq_lens.tolist()):
        begin, end = step.query_start_loc[request : request + 2].tolist()
        rows = pages[step.block_table_tensor[request].long()].permute(1, 0, 2, 3).flatten(1, 2)[:, :length].double()
        keys, values = (part.repeat_interleave(HEADS // KV_HEADS, 0) for part in rows.split(SIZE, dim=-1))
        at = torch.arange(length - (end - begin), length)[:, None]
        key = torch.arange(length)[None]
        scores = query[begin:end].double().transpose(0, 1) @ keys.transpose(1, 2) * SCALE
        scores = scores.masked_fill((key > at) | (key < at // CHUNK * CHUNK), -torch.inf)
        out[begin:end] = (scores.softmax(-1) @ values).transpose(0, 1)
    return out


# A long prompt, one beside a decode, two chunks of prompts that end and begin anywhere, drafts across a chunk's edge.
STEPS = [([200], [200]), ([200, 70], [200, 1]), ([190, 100], [150, 70]), ([64, 192], [64, 128]), ([65, 129], [2, 2])]


@pytest.mark.parametrize(("lengths", "queries"), STEPS)
def test_steps_of_more_chunks_than_requests(lengths, queries):
    torch.manual_seed(0)
    backend = create_chunked_local_attention_backend(RocmForgeBackend, CHUNK)
    builder = backend.get_builder_cls()(
        spec(CHUNK), ["placeholder"], config(MAX_NUM_SEQS, MAX_TOKENS, drafted=1), torch.device("cpu")
    )
    impl, pages, step = RocmForgeImpl(HEADS, SIZE, SCALE, KV_HEADS), cache(PAGES), batch(lengths, queries, PAGES)
    query = torch.randn(sum(queries), HEADS, SIZE)
    rocmforge_plugin.reset_launches()
    results = []
    for _ in range(2):  # the layer is met late in the first step, and planned for in the second
        metadata = builder.build(0, step)
        assert metadata.seq_lens.shape[0] > MAX_NUM_SEQS
        results.append(impl.forward(None, query, None, None, pages, metadata, torch.empty_like(query)))
    (planner,) = {id(plan.planner): plan.planner for plan in metadata.plans.values()}.values()
    assert planner.max_num_reqs == most_requests(builder.vllm_config, builder.kv_cache_spec)  # it was not outgrown
    launches = rocmforge_plugin.launches()
    assert launches["attention_plan"] == 2
    assert sum(count for name, count in launches.items() if "prefill" in name or "decode" in name) >= 2
    for result in results:
        torch.testing.assert_close(result.double(), chunked_reference(query, pages, step), atol=1e-5, rtol=1e-5)


@given(st.integers(1, 6), st.sampled_from((16, 32, 64)), st.integers(0, 2**32))
def test_no_step_has_more_requests_than_expected(max_num_seqs, chunk, seed):
    """Whatever the scheduler may make of its bounds, padding included; and some steps have just as many."""
    draw = random.Random(seed)
    max_tokens = draw.randint(max_num_seqs, 6 * chunk)
    left, lengths, queries = max_tokens, [], []
    for others in reversed(range(max_num_seqs)):  # each of the others has a token at least
        queries.append(draw.randint(1, left - others))
        left -= queries[-1]
        lengths.append(queries[-1] + draw.choice((0, chunk - 1, draw.randint(0, 3 * chunk))))
    common = batch(lengths, queries, 4096)
    cut, _ = make_local_attention_virtual_batches(chunk, common, 16)
    assert cut.num_reqs <= most_requests(config(max_num_seqs, max_tokens), spec(chunk))


@pytest.mark.parametrize(
    ("max_num_seqs", "max_tokens", "lengths", "queries"),
    [
        (2, 256, [CHUNK + 1, CHUNK + 253], [2, 254]),
        (3, 3, [9, 9, 9], [1, 1, 1]),
        (2, 3, [CHUNK + 1, 5], [2, 1]),
        (4, 8, [CHUNK + 1] * 4, [2] * 4),
    ],
)
def test_a_step_of_just_so_many(max_num_seqs, max_tokens, lengths, queries):
    cut, _ = make_local_attention_virtual_batches(CHUNK, batch(lengths, queries, PAGES), BLOCK)
    assert cut.num_reqs == most_requests(config(max_num_seqs, max_tokens), spec(CHUNK))


def test_without_chunks_there_are_no_more_than_the_schedulers():
    assert most_requests(config(7, 999), spec()) == 7


LAYERS, STEPS_OF_DECODE = 2, 8
SETTINGS = {"max_num_seqs": MAX_NUM_SEQS, "max_num_batched_tokens": MAX_TOKENS, "block_size": BLOCK}


def long_prompts(llm):
    """Two prompts of several chunks each, and one that comes when a place is free."""
    return greedy(
        llm, [prompt(length, start) for start, length in enumerate((200, 150, 90))], max_tokens=STEPS_OF_DECODE
    )


def test_llama_4_end_to_end(reference):
    """One layer of two cuts its requests; greedy tokens are those of vLLM's own attention."""
    model = checkpoint("llama4", attention_chunk_size=CHUNK, num_hidden_layers=LAYERS)
    expected = reference.start(model, long_prompts, **SETTINGS)
    with engine(model, "rocmforge", "float32", **SETTINGS) as llm:
        found = long_prompts(llm)
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        layers = llm.apply_model(
            lambda model: [type(module).__name__ for module in model.modules() if hasattr(module, "attn_backend")]
        )[0]
    assert sorted(layers) == ["Attention", "ChunkedLocalAttention"]
    for one, other in zip(found, expected.result().result, strict=True):
        assert one.tokens == other.tokens
        assert largest(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < 2e-3
    # Each of the two builders plans once a step, whatever vLLM cuts; prompts take at least two steps.
    steps, rest = divmod(launches["attention_plan"], LAYERS)
    assert rest == 0 and steps >= 2 * STEPS_OF_DECODE
    assert sum(count for name, count in launches.items() if "kv_write" in name) == LAYERS * steps
    assert sum(count for name, count in launches.items() if "prefill" in name) >= LAYERS * 2
