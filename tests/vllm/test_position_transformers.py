# SPDX-License-Identifier: Apache-2.0
"""Every form of position embedding in GLM's models, as vLLM's model classes ask for it, against Transformers' own
implementation of that model in fp32. ChatGLM, which Transformers does not have, is written out from its description.

`docs/position.md` has these rows as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import pytest
import torch
from vllm.config import CompilationConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.layers.rotary_embedding.common import ApplyRotaryEmb

import rocmforge_plugin
from rocmforge_plugin.vllm.position import layers

TOKENS, HEADS, KV_HEADS, LONGEST = 11, 4, 2, 512
TOLERANCE = 1e-4  # neighbours of an angle of 512 in fp32 are 6e-5 apart, so its cosine is not known better
Turned = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Row:
    """One model: where Transformers has it, and how vLLM's class builds its layer."""

    model: str
    prefix: str  # of Transformers' classes
    neox: bool
    head_size: int = 128
    partial: float = 0.5
    base: float = 10000.0
    section: tuple[int, int, int] | None = None
    apply: str = "apply_rotary_pos_emb"
    rotary: str = "RotaryEmbedding"
    config: str = "Config"
    latent: bool = False  # query and key are the rope slices of wider rows
    scaling: tuple[tuple[str, Any], ...] = (("rope_type", "default"),)

    def rope_parameters(self) -> dict[str, Any]:
        found = {"rope_theta": self.base, "partial_rotary_factor": self.partial, **dict(self.scaling)}
        return found | ({"mrope_section": list(self.section)} if self.section else {})


YARN = (("rope_type", "yarn"), ("factor", 4.0), ("original_max_position_embeddings", LONGEST // 4))
ROWS = (
    Row("glm", "Glm", False),
    Row("glm4", "Glm4", False),
    Row("glm4", "Glm4", False, scaling=YARN),
    Row("glm4_moe", "Glm4Moe", True, base=1e6),
    Row("glm4_moe", "Glm4Moe", True, base=1e6, scaling=YARN),
    Row("glm4_moe_lite", "Glm4MoeLite", False, 64, 1.0, 1e6, apply="apply_rotary_pos_emb_interleave", latent=True),
    Row("glm_moe_dsa", "GlmMoeDsa", False, 64, 1.0, 1e6, apply="apply_rotary_pos_emb_interleave", latent=True),
    Row("glm4v", "Glm4v", False, section=(8, 12, 12), rotary="TextRotaryEmbedding", config="TextConfig"),
    Row("glm4v_moe", "Glm4vMoe", True, section=(8, 12, 12), rotary="TextRotaryEmbedding", config="TextConfig"),
    Row(
        "glm_ocr", "GlmOcr", False, partial=1.0, section=(16, 24, 24), rotary="TextRotaryEmbedding", config="TextConfig"
    ),
)


@pytest.fixture(autouse=True)
def layers_are_ours():
    layers.register()
    with set_current_vllm_config(VllmConfig(compilation_config=CompilationConfig(custom_ops=["all"]))):
        yield


def theirs(row: Row, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> Turned:
    """[tokens, heads, head_size] rotated by Transformers; positions [tokens] or [3, tokens]."""
    module = import_module(f"transformers.models.{row.model}.modeling_{row.model}")
    configs = import_module(f"transformers.models.{row.model}.configuration_{row.model}")
    config = getattr(configs, row.prefix + row.config)(
        hidden_size=HEADS * row.head_size,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=LONGEST,
        rope_parameters=row.rope_parameters(),
        **({"qk_rope_head_dim": row.head_size} if row.latent else {"head_dim": row.head_size}),
    )
    embed = getattr(module, row.prefix + row.rotary)(config)
    cos, sin = embed(query, positions.unsqueeze(-2))  # a batch of one
    turned = getattr(module, row.apply)(*(x.transpose(0, 1).unsqueeze(0) for x in (query, key)), cos, sin)
    return tuple(x[0].transpose(0, 1) for x in turned)


def ours(row: Row, positions: torch.Tensor, query: torch.Tensor, key: torch.Tensor, neox: bool) -> Turned:
    """The same by the layer that vLLM's model class gets, from tensors laid out as the model has them."""
    layer = get_rope(row.head_size, LONGEST, neox, row.rope_parameters(), dtype=torch.float32)
    assert type(layer).__name__.startswith("RocmForge")
    if row.latent:  # views with the strides of GLM-4.7-Flash: behind 192 elements of a head, behind the 512 latents
        wide = torch.cat((torch.randn(TOKENS, HEADS, 192), query), dim=-1)
        latent = torch.cat((torch.randn(TOKENS, 512), key[:, 0]), dim=-1)
        views = [wide[..., 192:], latent[:, 512:].unsqueeze(1)]
    else:  # of one QKV product
        qkv = torch.cat((query.flatten(1), key.flatten(1), torch.randn(TOKENS, KV_HEADS * row.head_size)), dim=-1)
        views = list(qkv.split([HEADS * row.head_size, KV_HEADS * row.head_size, KV_HEADS * row.head_size], -1)[:2])
    rocmforge_plugin.reset_launches()
    turned = layer(positions, *views)
    assert sum(rocmforge_plugin.launches().values()) == 1
    return tuple(x.reshape(like.shape) for x, like in zip(turned, (query, key), strict=True))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.model}-{dict(row.scaling)['rope_type']}")
def test_language_models(row):
    torch.manual_seed(1)
    positions = torch.randint(0, LONGEST, (3, TOKENS) if row.section else (TOKENS,))
    query = torch.randn(TOKENS, HEADS, row.head_size)
    key = torch.randn(TOKENS, 1 if row.latent else KV_HEADS, row.head_size)
    wanted = theirs(row, positions, query, key)
    got, faulty = (ours(row, positions, query, key, neox) for neox in (row.neox, not row.neox))
    if row.apply.endswith("interleave"):  # Transformers returns the first of all pairs, then the second
        got = tuple(torch.cat((x[..., ::2], x[..., 1::2]), dim=-1) for x in got)
        faulty = tuple(torch.cat((x[..., ::2], x[..., 1::2]), dim=-1) for x in faulty)
    for right, found, wrong in zip(wanted, got, faulty, strict=True):
        torch.testing.assert_close(found, right, atol=TOLERANCE, rtol=TOLERANCE)
        assert (wrong - right).abs().max() > 0.5


@pytest.mark.parametrize("ratio", [1, 50, 500])
def test_chatglm(ratio):
    """ChatGLM2, ChatGLM3 and GLM-4-9B: half of each head, pairs of neighbours, a base times `rope_ratio`."""
    torch.manual_seed(1)
    positions, size = torch.randint(0, LONGEST, (TOKENS,)), 128
    query, key = torch.randn(TOKENS, HEADS, size), torch.randn(TOKENS, KV_HEADS, size)
    angles = torch.outer(positions.float(), (10000.0 * ratio) ** -(torch.arange(0, 64, 2).float() / 64))

    def turn(x: torch.Tensor) -> torch.Tensor:
        pairs, rest = x[..., :64].unflatten(-1, (32, 2)), x[..., 64:]
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.polar(torch.ones(()), angles)[:, None])
        return torch.cat((turned.flatten(-2), rest), dim=-1)

    row = Row("chatglm", "ChatGLM", False, base=10000.0 * ratio)
    for x, found in zip((query, key), ours(row, positions, query, key, False), strict=True):
        torch.testing.assert_close(found, turn(x), atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(("model", "prefix"), [("glm4v", "Glm4v"), ("glm4v_moe", "Glm4vMoe"), ("glm_ocr", "GlmOcr")])
def test_vision_encoders(model, prefix):
    """Query and key of all patches at once, as vLLM hands them over: [2, patches, heads, head_size]."""
    torch.manual_seed(1)
    module = import_module(f"transformers.models.{model}.modeling_{model}")
    config = getattr(import_module(f"transformers.models.{model}.configuration_{model}"), f"{prefix}VisionConfig")(
        hidden_size=HEADS * 64, num_heads=HEADS
    )
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(6))  # [patches, 2]
    query, key = torch.randn(24, HEADS, 64), torch.randn(24, HEADS, 64)
    cos, sin = getattr(module, f"{prefix}VisionRotaryEmbedding")(config)(query, grid)
    wanted = torch.stack(module.apply_rotary_pos_emb_vision(query, key, cos, sin))
    layer = get_rope(64, 8192, True, {"partial_rotary_factor": 0.5}, dtype=torch.float32)
    halves = [part[grid].flatten(1) for part in layer.get_cos_sin(6)]  # as vLLM's encoder makes them
    rocmforge_plugin.reset_launches()
    got = ApplyRotaryEmb(enforce_enable=True)(torch.stack((query, key)), *halves)
    assert sum(rocmforge_plugin.launches().values()) == 1
    torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    faulty = ApplyRotaryEmb(enforce_enable=True, is_neox_style=False)(torch.stack((query, key)), *halves)
    assert (faulty - wanted).abs().max() > 0.5


def test_audio_encoder():
    """GLM-ASR: the first half of each head, positions in time."""
    torch.manual_seed(1)
    from transformers.models.glmasr import configuration_glmasr, modeling_glmasr

    config = configuration_glmasr.GlmAsrEncoderConfig(hidden_size=HEADS * 64, num_attention_heads=HEADS, head_dim=64)
    embed = modeling_glmasr.GlmAsrRotaryEmbedding(config)
    query = torch.randn(1, TOKENS, HEADS, 64)
    cos, sin = embed(query, torch.arange(TOKENS)[None])
    assert cos.shape[-1] == 32
    wanted = modeling_glmasr.apply_rotary_pos_emb(query, query, cos, sin, unsqueeze_dim=2)[0]
    halves = [part[0, :, :16].contiguous() for part in (cos, sin)]
    rocmforge_plugin.reset_launches()
    got = ApplyRotaryEmb(enforce_enable=True)(query, *halves)
    assert sum(rocmforge_plugin.launches().values()) == 1
    torch.testing.assert_close(got, wanted, atol=TOLERANCE, rtol=TOLERANCE)
    faulty = ApplyRotaryEmb(enforce_enable=True, is_neox_style=False)(query, *halves)
    assert (faulty - wanted).abs().max() > 0.5
