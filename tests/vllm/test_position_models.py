# SPDX-License-Identifier: Apache-2.0
"""GLM's language models with the position layer replaced and attention left to the host, and both compiled: against
Transformers in fp32 (ChatGLM, which it does not have, against vLLM), exact counts of launches, and planted faults.

GLM-4.7-Flash is among them: its latent attention is the host's, and the rope slices that its rotary layer is given are
strided views of three dimensions. The host is no oracle for it: vLLM 0.32's CPU rotary rotates such views wrongly.
"""

from __future__ import annotations

import statistics
from functools import cache
from typing import Any

import pytest
import torch

import rocmforge_plugin

from .engines import checkpoint, engine, greedy, largest, prompt, score
from .faults import flipped, half_table, planted
from .oracle import Answer, transformers_says

LAYERS, STEPS = 2, 6
PROMPTS = [prompt(9), prompt(40, 3)]
ROUNDING = 5e-4  # of fp32 log probabilities: 6e-5 was seen; a fault must move them 20 times as far
TRANSFORMERS = ("glm4", "glm", "glm4_moe", "glm4_moe_lite")
KINDS = (*TRANSFORMERS, "chatglm")
MLA = {"block_size": 16}  # vLLM's CPU kernel of latent attention has no other


def answer(llm: Any) -> Answer:
    """STEPS greedy tokens a prompt, and the prompts' log probabilities."""
    return Answer([sequence.tokens for sequence in greedy(llm, PROMPTS, max_tokens=STEPS)], scores(llm))


def scores(llm: Any) -> list[list[float]]:
    return score(llm, [one["prompt_token_ids"] for one in PROMPTS])


@cache
def transformers_knows(kind: str, dtype: torch.dtype = torch.float32) -> Answer:
    """The same from Transformers' model."""
    return transformers_says(checkpoint(kind), PROMPTS, STEPS, dtype)


@pytest.fixture(scope="module")
def truth(reference):
    """Function: the oracle's answer for a kind of checkpoint."""
    future = reference.start(checkpoint("chatglm"), answer)
    return lambda kind: future.result().result if kind == "chatglm" else transformers_knows(kind)


def differences(ours: list[list[float]], theirs: list[list[float]]) -> list[float]:
    return [abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)]


def assert_same(ours: Answer, theirs: Answer) -> None:
    assert ours[0] == theirs[0]
    assert largest(differences(ours[1], theirs[1])) < ROUNDING


def counted(llm: Any) -> tuple[Answer, dict[str, int]]:
    """The answer, and the launches of its STEPS steps by kernel, without those of attention."""
    rocmforge_plugin.reset_launches()
    tokens = [sequence.tokens for sequence in greedy(llm, PROMPTS, max_tokens=STEPS)]
    launches = rocmforge_plugin.launches()
    return Answer(tokens, scores(llm)), {
        name: count for name, count in launches.items() if count and not name.startswith("attention")
    }


def start(kind: str, backend: str | None = None, dtype: str = "float32", **settings: Any) -> Any:
    """An engine whose attention is the host's, unless another backend is named."""
    latent = kind == "glm4_moe_lite"
    return engine(
        checkpoint(kind), backend or ("CPU_MLA" if latent else "CPU_ATTN"), dtype, **(MLA if latent else {}), **settings
    )


FAULTS: dict[str, dict[str, Any]] = {
    "pair layout": {"is_neox_style": flipped},
    "rotary part": {"cos_sin_cache": half_table},
}


@pytest.mark.parametrize("kind", KINDS)
def test_positions_alone_and_faults(kind, truth):
    """Rotary is its own launch, once a layer and step."""
    with start(kind) as llm:
        result, launches = counted(llm)
        faulty = {}
        for name, changes in FAULTS.items():
            with planted(llm, "RocmForgeRotaryEmbedding", changes):
                faulty[name] = scores(llm)
        healed = scores(llm)
    expected = truth(kind)
    assert_same(result, expected)
    assert largest(differences(healed, expected[1])) < ROUNDING
    assert launches == {"rotary_v16_float": LAYERS * STEPS}
    found = {name: max(differences(rows, expected[1])) for name, rows in faulty.items()}
    assert min(found.values()) > 20 * ROUNDING, found


@pytest.mark.parametrize(
    ("kind", "kernel", "inductor"),
    [
        ("glm4", "rotary_kv_write_v16_float", False),
        ("glm", "rotary_kv_write_v16_float", False),
        ("glm4_moe", "norm_rotary_kv_write_v16_float", False),
        ("chatglm", "rotary_kv_write_v16_float", False),
        ("glm4_moe_lite", "rotary_v16_float", True),
    ],
)
def test_compiled(kind, kernel, inductor, truth, monkeypatch):
    """torch.compile around both layers, or around the position layer alone where attention is latent. Without inductor
    the traced graph runs as it is, which takes seconds less; with it, GLM-4 is in test_parity, GLM-4.5 in
    test_fusion_passes.
    """
    monkeypatch.setenv("VLLM_CPU_CI_ENV", str(int(not inductor)))
    with start(kind, None if kind == "glm4_moe_lite" else "rocmforge", enforce_eager=False) as llm:
        result, launches = counted(llm)
    assert_same(result, truth(kind))
    assert launches == {kernel: LAYERS * STEPS}


def test_latent_attention_bf16_errors_are_rounding():
    """As close to fp32 as Transformers' own bf16."""
    exact = transformers_knows("glm4_moe_lite")[1]
    with start("glm4_moe_lite", dtype="bfloat16") as llm:
        ours = differences(scores(llm), exact)
        assert rocmforge_plugin.launches()["rotary_v16_bf16"] > 0
    theirs = differences(transformers_knows("glm4_moe_lite", torch.bfloat16)[1], exact)
    assert statistics.mean(ours) <= 2 * statistics.mean(theirs) + 1e-5
    assert largest(ours) <= 2 * largest(theirs) + 1e-5
