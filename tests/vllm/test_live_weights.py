# SPDX-License-Identifier: Apache-2.0
"""Weights that change under a running engine: in place, by a trainer's load, by a reload, after sleep gave up memory.

Whatever the plugin has made of a weight must follow it. Nothing tells the plugin: loaders write through `.data`, which
no version counts.
"""

from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file

import rocmforge_plugin
from rocmforge_plugin.reference import attend
from rocmforge_plugin.vllm.backend.builder import RocmForgeMetadataBuilder
from rocmforge_plugin.vllm.backend.head_values import Copies, HeadValues
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from tests.vllm.batches import KV_HEADS, SIZE, batch, cache, config, spec
from tests.vllm.engines import checkpoint, engine, greedy, largest, prompt, score

TEXTS = [prompt(length, length)["prompt_token_ids"] for length in (20, 70)]
CPU = torch.device("cpu")


def apart(one, other) -> float:
    """The largest difference of two scores of TEXTS."""
    return largest(abs(a - b) for row, right in zip(one, other, strict=True) for a, b in zip(row, right, strict=True))


def change(model: Any, ending: str) -> None:
    """Turns the tensors with such names around, in place and as loaders do, behind autograd's back."""
    found = [one for name, one in [*model.named_parameters(), *model.named_buffers()] if name.endswith(ending)]
    assert found, f"the model has no {ending}"
    for one in found:
        one.data.copy_(one.data.flip(0) * 1.5)


class ScoreAndChange:
    """Workload: scores of TEXTS and of four more tokens, at first and after each change, which stays."""

    def __init__(self, *endings: str) -> None:
        self.endings = endings

    def __call__(self, llm: Any) -> list[Any]:
        results = [scored_and_continued(llm)]
        for ending in self.endings:
            llm.apply_model(lambda model, ending=ending: change(model, ending))
            results.append(scored_and_continued(llm))
        return results


def scored_and_continued(llm: Any) -> list[list[float]]:
    """Log probabilities of TEXTS' tokens, and of those that follow them."""
    continued = greedy(llm, [{"prompt_token_ids": text} for text in TEXTS], 4)
    return [*score(llm, TEXTS), *(one.logprobs for one in continued)]


@pytest.mark.parametrize(
    ("kind", "endings"), [("gpt_oss", ("sinks",)), ("glm4_moe", ("q_norm.weight", "k_norm.weight", "cos_sin_cache"))]
)
def test_in_place_updates_reach_the_kernels(kind, endings, reference):
    """fp32, beside vLLM's own kernels under the same updates: sinks, head norms and rotary tables of fused launches."""
    shape = {"intermediate_size": 128} if kind == "gpt_oss" else {}
    ours, theirs = reference.both(checkpoint(kind, **shape), ScoreAndChange(*endings))
    for step, (one, other) in enumerate(zip(ours.result, theirs.result, strict=True)):
        assert apart(one, other) < 2e-3
        assert step == 0 or apart(one, ours.result[step - 1]) > 0.05
    assert ours.ran("attention_prefill") >= 2 * (1 + len(endings))


def sinks_of(model: Any) -> dict[str, torch.Tensor]:
    """The model's sinks, by its parameters' names."""
    return {name: one for name, one in model.named_parameters() if name.endswith("sinks")}


@torch.no_grad()
def copy_to(parameters: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> None:
    """Layer by layer; their names differ."""
    for name, value in zip(sorted(parameters), (values[one] for one in sorted(values)), strict=True):
        parameters[name].copy_(value)


def test_every_way_to_update_sinks():
    """bf16, where the kernels read a copy: all ways lead to the same bits, and back."""
    folder = checkpoint("gpt_oss", intermediate_size=128)
    stored = {name: one for name, one in load_file(f"{folder}/model.safetensors").items() if name.endswith("sinks")}
    others = {name: one.flip(0) * 1.5 + 1 for name, one in stored.items()}

    with engine(folder, "rocmforge", "bfloat16") as llm:
        first = score(llm, TEXTS)
        # As trainers do.
        llm.apply_model(lambda model: len(model.load_weights(iter(others.items()))))
        updated = score(llm, TEXTS)
        assert apart(first, updated) > 0.05
        # As vLLM does with weights that come by the names of its own parameters, which torch counts.
        llm.apply_model(lambda model: copy_to(sinks_of(model), stored))
        assert score(llm, TEXTS) == first
        # As most loaders do, which torch does not.
        llm.apply_model(lambda model: [one.data.copy_(one.data.flip(0) * 1.5 + 1) for one in sinks_of(model).values()])
        assert score(llm, TEXTS) == updated
        assert any("attention_prefill_bf16" in name for name, count in rocmforge_plugin.launches().items() if count)


def test_absorbed_weights_of_latent_attention():
    """What vLLM makes of kv_b_proj for decodes is not what prompts are multiplied with: after an update both must
    agree, so that a text is scored as it was continued.
    """
    with engine(checkpoint("glm4_moe_lite"), "rocmforge", "float32") as llm:
        before = continued_as_scored(llm)
        llm.apply_model(lambda model: change(model, "kv_b_proj.weight"))
        after = continued_as_scored(llm)
        assert after != before


def continued_as_scored(llm: Any) -> list[int]:
    """Tokens that follow a text; asserts that a score of the whole finds the probabilities of the decodes."""
    text = TEXTS[0]
    (sequence,) = greedy(llm, [{"prompt_token_ids": text}], 8)
    (scores,) = score(llm, [text + sequence.tokens])
    assert largest(abs(a - b) for a, b in zip(scores[-8:], sequence.logprobs, strict=True)) < 2e-3
    return sequence.tokens


def builder() -> RocmForgeMetadataBuilder:
    return RocmForgeMetadataBuilder(spec(), ["placeholder"], config(4, 64), CPU)


def layer(**extra: Any) -> RocmForgeImpl:
    slopes, cap = extra.pop("slopes", None), extra.pop("cap", None)
    return RocmForgeImpl(4, SIZE, SIZE**-0.5, KV_HEADS, slopes, None, "auto", cap, **extra)


def run_layer(impl: RocmForgeImpl, made: RocmForgeMetadataBuilder, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Result, query, keys and values of a request of 40 keys, 3 of them new."""
    torch.manual_seed(seed)
    pages, common = cache(2), batch([40], [3], 2)
    query = torch.randn(3, 4, SIZE)
    metadata = made.build(0, common)
    out = impl.forward(None, query, None, None, pages, metadata, torch.full_like(query, torch.nan))
    rows = torch.cat([pages[page] for page in common.block_table_tensor[0].tolist()], dim=1)[:, :40]
    keys, values = rows.transpose(0, 1).tensor_split([SIZE], dim=-1)
    return out, query, keys, values


def assert_right(got: tuple[torch.Tensor, ...], **score_of: Any) -> None:
    out, query, keys, values = got
    right, _ = attend(query, keys, values, SIZE**-0.5, **score_of)
    torch.testing.assert_close(out.double(), right, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sinks_of_a_layer_that_nobody_announced(dtype):
    """Found at its first step, and followed in those that come, at one address."""
    sinks = torch.nn.Parameter(torch.randn(4).to(dtype))
    impl, made = layer(sinks=sinks), builder()
    assert_right(run_layer(impl, made), sinks=sinks.detach())
    placed = cast("torch.Tensor", impl.sinks)
    address = placed.data_ptr()
    assert (impl.sinks is sinks) == (dtype is torch.float32)
    sinks.data.copy_(torch.tensor([3.0, -2.0, 5.0, 1.0]))
    assert_right(run_layer(impl, made, 1), sinks=sinks.detach())
    assert placed.data_ptr() == address and impl.sinks is placed


def test_slopes_come_back_with_a_reload():
    """From memory that sleep gave up, where anything may stand."""
    slopes = [0.5, 0.25, 0.125, 1.0]
    impl, made = layer(slopes=slopes), builder()
    assert_right(run_layer(impl, made), alibi_slopes=torch.tensor(slopes))
    placed = cast("torch.Tensor", impl.alibi_slopes)
    address = placed.data_ptr()
    placed.fill_(torch.nan)
    impl.process_weights_after_loading(torch.float32)
    assert_right(run_layer(impl, made, 1), alibi_slopes=torch.tensor(slopes))
    assert placed.data_ptr() == address and impl.alibi_slopes is placed


def test_square_root_alibi():
    """The bias is that of the distance's root, which no checkpoint here has: against the formula."""
    slopes = torch.tensor([0.5, 0.25, 2.0, 1.0])
    got, query, keys, values = run_layer(layer(slopes=slopes.tolist(), use_alibi_sqrt=True), builder())
    scores = query.double().transpose(0, 1) @ keys.double().permute(1, 2, 0).repeat_interleave(2, 0) * SIZE**-0.5
    distance = torch.arange(37, 40)[:, None] - torch.arange(40)
    scores = scores - slopes[:, None, None].double() * distance.clamp(min=0).double().sqrt()
    weights = scores.masked_fill(distance < 0, -torch.inf).softmax(-1)
    right = (weights @ values.double().transpose(0, 1).repeat_interleave(2, 0)).transpose(0, 1)
    torch.testing.assert_close(got.double(), right, atol=1e-5, rtol=1e-5)


def test_soft_cap_beside_sinks_and_their_update():
    sinks = torch.nn.Parameter(torch.randn(4).bfloat16())
    impl, made = layer(cap=1.5, sinks=sinks), builder()
    assert_right(run_layer(impl, made), soft_cap=1.5, sinks=sinks.detach())
    sinks.data.mul_(-2)
    assert_right(run_layer(impl, made, 1), soft_cap=1.5, sinks=sinks.detach())


def test_copies_are_kept_once_and_placed_outside_of_captures(monkeypatch):
    values, copies = HeadValues(torch.zeros(4, dtype=torch.bfloat16)), Copies()
    placed = values.place(CPU)
    for _ in range(2):
        copies.add(values)
    assert len(copies._tensors) == 1 and values.place(CPU) is placed
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="cudagraph_num_of_warmups=1"):
        HeadValues([1.0, 2.0]).place(torch.device("cuda"))
