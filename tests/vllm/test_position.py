# SPDX-License-Identifier: Apache-2.0
"""The rotary layers in vLLM's place: registration, switches, every class against vLLM's, the fused launch's rules."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import CompilationConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.rotary_embedding import (
    DeepseekScalingRotaryEmbedding,
    MRotaryEmbedding,
    RotaryEmbedding,
    YaRNScalingRotaryEmbedding,
)
from vllm.model_executor.layers.rotary_embedding.common import ApplyRotaryEmb
from vllm.model_executor.models import glm4

import rocmforge_plugin
from rocmforge_plugin.vllm.log import logger
from rocmforge_plugin.vllm.position import glm, latent
from rocmforge_plugin.vllm.position import layers as replaced
from rocmforge_plugin.vllm.position.rotary_layers import LAYERS, RocmForgeRotaryEmbedding

from .engines import checkpoint, prompt, run_ours


def config(*custom_ops: str, **additional) -> VllmConfig:
    return VllmConfig(
        compilation_config=CompilationConfig(custom_ops=list(custom_ops) or ["all"]), additional_config=dict(additional)
    )


@pytest.fixture(autouse=True)
def registered():
    before = dict(op_registry_oot)
    replaced.register()
    yield
    op_registry_oot.clear()
    op_registry_oot.update(before)


def run_layer(build, *arguments):
    """The layer's results from rocmforge and from vLLM, and the launches of the former."""
    with set_current_vllm_config(config()):
        ours = build()
        rocmforge_plugin.reset_launches()
        got = ours(*[a.clone() for a in arguments])
        launches = sum(rocmforge_plugin.launches().values())
        op_registry_oot.clear()
        theirs = build()
    assert type(ours) is not type(theirs)
    return got, theirs.forward_native(*[a.clone() for a in arguments]), launches


def tensors(head_size: int, dtype: torch.dtype, tokens: int = 7) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (
        torch.randint(0, 200, (tokens,)),
        torch.randn(tokens, 4 * head_size).to(dtype),
        torch.randn(tokens, 2 * head_size).to(dtype),
    )


def assert_close(got, wanted, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other.view(one.shape), atol=tolerance, rtol=tolerance)


DTYPES = (torch.float32, torch.bfloat16)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize("rotary_dim", [64, 128])
def test_rotary_embedding(dtype, neox, rotary_dim):
    got, wanted, launches = run_layer(
        lambda: RotaryEmbedding(128, rotary_dim, 256, 10000.0, neox, dtype), *tensors(128, dtype)
    )
    assert launches == 1
    assert_close(got, wanted, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neox", [False, True])
def test_yarn(dtype, neox):
    got, wanted, launches = run_layer(
        lambda: YaRNScalingRotaryEmbedding(128, 64, 128, 10000.0, neox, 2.0, dtype), *tensors(128, dtype)
    )
    assert launches == 1
    assert_close(got, wanted, dtype)


@pytest.mark.parametrize("neox", [False, True])
def test_deepseek_scaling(neox):
    positions, query, key = tensors(64, torch.float32)
    arguments = positions, query.view(7, 4, 64), key.view(7, 2, 64)
    got, wanted, launches = run_layer(
        lambda: DeepseekScalingRotaryEmbedding(64, 64, 128, 10000.0, neox, 2.0, torch.float32), *arguments
    )
    assert launches == 1
    assert_close(got, wanted, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize(("rotary_dim", "section"), [(64, [8, 12, 12]), (128, [16, 24, 24])])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("text_only", [False, True])
def test_mrope(dtype, neox, rotary_dim, section, interleaved, text_only):
    _, query, key = tensors(128, dtype)
    positions = torch.randint(0, 200, (7,) if text_only else (3, 7))
    got, wanted, launches = run_layer(
        lambda: MRotaryEmbedding(
            128, rotary_dim, 256, 10000.0, neox, dtype, mrope_section=section, mrope_interleaved=interleaved
        ),
        positions,
        query,
        key,
    )
    assert launches == 1
    assert_close(got, wanted, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(9, 4, 64), (2, 9, 4, 64)])
@pytest.mark.parametrize("fp32", [False, True])
def test_vision_rotary(dtype, shape, fp32):
    x = torch.randn(shape).to(dtype)
    cos, sin = torch.rand(9, 32).to(dtype), torch.rand(9, 32).to(dtype)
    got, wanted, launches = run_layer(lambda: ApplyRotaryEmb(enable_fp32_compute=fp32), x, cos, sin)
    assert launches == 1
    assert_close([got], [wanted], dtype)


def test_wrong_layouts_show():
    """The comparisons above are sensitive: another pair layout, rotary part or section is not close."""
    positions, query, key = tensors(128, torch.float32)
    with set_current_vllm_config(config()):
        right = RotaryEmbedding(128, 64, 256, 10000.0, False, torch.float32)(positions, query.clone(), key.clone())[0]
        for neox, rotary_dim in ((True, 64), (False, 128)):
            wrong = RotaryEmbedding(128, rotary_dim, 256, 10000.0, neox, torch.float32)(
                positions, query.clone(), key.clone()
            )[0]
            assert (wrong - right).abs().max() > 0.1


def test_rotates_in_place_through_strided_views():
    """The sparse indexer ignores what the layer returns."""
    with set_current_vllm_config(config()):
        layer = RotaryEmbedding(64, 64, 256, 10000.0, False, torch.float32)
    query, key = torch.randn(7, 3, 128), torch.randn(7, 128)
    before = query.clone()
    layer(torch.arange(7) + 1, query[..., :64], key[..., :64].unsqueeze(1))
    assert not torch.equal(query[..., :64], before[..., :64]) and torch.equal(query[..., 64:], before[..., 64:])


def test_a_second_registration_and_another_plugins_layer_stay():
    replaced.register()
    assert op_registry_oot["RotaryEmbedding"] is RocmForgeRotaryEmbedding

    class Other(MRotaryEmbedding):
        pass

    op_registry_oot["MRotaryEmbedding"] = Other
    del op_registry_oot["ApplyRotaryEmb"]
    replaced.register()
    assert op_registry_oot["MRotaryEmbedding"] is Other
    assert op_registry_oot["ApplyRotaryEmb"] is LAYERS[ApplyRotaryEmb]


@pytest.mark.parametrize(
    ("directives", "kernels"),
    [
        (["all"], True),
        (["none"], True),
        (["none", "+rotary_embedding"], True),
        (["all", "-rotary_embedding"], False),
        (["none", "-RotaryEmbedding"], False),
    ],
)
def test_on_under_inductor_unless_switched_off(directives, kernels):
    """With inductor vLLM's default is ["none"], which turns its own custom ops off."""
    current = config(*directives)
    with set_current_vllm_config(current):
        layer = RotaryEmbedding(64, 64, 256, 10000.0, False, torch.float32)
    rocmforge_plugin.reset_launches()
    layer(*tensors(64, torch.float32))
    assert (sum(rocmforge_plugin.launches().values()) == 1) is kernels
    assert current.additional_config["rocmforge_rotary"] == (rocmforge_plugin.__version__ if kernels else "off")


def test_the_compile_cache_tells_processes_with_and_without_apart():
    with_layer, without = config(), config()
    with set_current_vllm_config(with_layer):
        RotaryEmbedding(64, 64, 256, 10000.0, False, torch.float32)
    op_registry_oot.clear()
    with set_current_vllm_config(without):
        RotaryEmbedding(64, 64, 256, 10000.0, False, torch.float32)
    assert with_layer.compute_hash() != without.compute_hash()


def test_the_environment_switches_it_off():
    code = (
        "import rocmforge_plugin; rocmforge_plugin.register()\n"
        "from vllm.model_executor.custom_op import op_registry_oot as layers\n"
        "from vllm.model_executor.models.registry import ModelRegistry\n"
        "print('RotaryEmbedding' in layers, 'rocmforge' in ModelRegistry.models['GlmForCausalLM'].module_name)"
    )
    for switch, expected in (("0", "False False"), ("1", "True True")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"ROCMFORGE_POSITION": switch},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip().splitlines()[-1] == expected


def attention_module(**changes):
    """What `glm.obstacle` looks at, and a config, both without an obstacle."""
    layer = dict(
        attn_backend=SimpleNamespace(get_name=lambda: "ROCMFORGE"),
        attn_type="decoder",
        kv_sharing_target_layer_name=None,
        kv_cache_dtype="auto",
    )
    settings = dict(decode_context_parallel_size=1, prefill_context_parallel_size=1)
    rotary = changes.pop("rotary", SimpleNamespace(kernels=True))
    module = SimpleNamespace(
        attn=SimpleNamespace(**layer | {k: v for k, v in changes.items() if k in layer}), rotary_emb=rotary
    )
    parallel = SimpleNamespace(**settings | {k: v for k, v in changes.items() if k in settings})
    return module, SimpleNamespace(parallel_config=parallel, model_config=SimpleNamespace(dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"kv_cache_dtype": "bfloat16"}, None),
        ({"attn_backend": SimpleNamespace(get_name=lambda: "CPU_ATTN")}, "CPU_ATTN"),
        ({"attn_type": "encoder_only"}, "encoder_only"),
        ({"kv_sharing_target_layer_name": "layers.3"}, "shares the KV cache of layers.3"),
        ({"decode_context_parallel_size": 2}, "decode_context_parallel_size is 2"),
        ({"kv_cache_dtype": "fp8"}, "KV cache is fp8"),
        ({"rotary": SimpleNamespace()}, "SimpleNamespace"),
    ],
)
def test_where_the_fused_launch_is_not_legal(changes, reason):
    module, settings = attention_module(**changes)
    with set_current_vllm_config(config()):
        found = glm.obstacle(module, settings)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"attn_backend": SimpleNamespace(get_name=lambda: "TRITON_MLA")}, "TRITON_MLA"),
        ({"rotary": None}, "no rotary layer"),
        ({"rotary": SimpleNamespace()}, "SimpleNamespace"),
        ({"rotary": SimpleNamespace(kernels=True, mrope_section=[1, 1, 1])}, "M-RoPE"),
        ({"is_sparse": True}, "is_sparse"),
        ({"g_proj": torch.nn.Identity()}, "g_proj"),
        ({"fuse_qkv_rmsnorm": True}, "fuse_qkv_rmsnorm"),
        ({"decode_context_parallel_size": 2}, "decode_context_parallel_size is 2"),
    ],
)
def test_where_the_fused_launch_of_latents_is_not_legal(changes, reason):
    extras = {name: changes.pop(name) for name in ("is_sparse", "g_proj", "fuse_qkv_rmsnorm") if name in changes}
    module, settings = attention_module(**changes)
    module = SimpleNamespace(mla_attn=module.attn, rotary_emb=module.rotary_emb, **extras)
    with set_current_vllm_config(config()):
        found = latent.obstacle(module, settings)
    assert found is None if reason is None else reason in str(found)


@pytest.mark.parametrize(
    ("changes", "fused", "reason"),
    [
        ({"kv_sharing_target_layer_name": "layers.77"}, 1, "it shares the KV cache of layers.77"),
        (
            {"decode_context_parallel_size": 77},
            0,
            "decode_context_parallel_size is 77: a rank keeps only a part of the keys",
        ),
    ],
)
def test_what_is_not_fused_is_said_once(changes, fused, reason, caplog_vllm):
    """Two layers, of which the second (or both) must stay as they are: one line tells why."""
    layers: list[Any] = []
    for part in ({key: value for key, value in changes.items() if key.startswith("decode")}, changes):
        found, settings = attention_module(**part)
        layer = glm4.Glm4Attention.__new__(glm4.Glm4Attention)
        torch.nn.Module.__init__(layer)
        layer.attn, layer.rotary_emb = found.attn, found.rotary_emb
        layers.append(layer)
    settings.attention_config = SimpleNamespace(backend=SimpleNamespace(name="ROCMFORGE"))
    with caplog_vllm.at_level("INFO", logger=logger.name), set_current_vllm_config(config()):
        glm.fuse(torch.nn.ModuleList(layers), settings)
        glm.fuse(torch.nn.ModuleList(layers), settings)  # as for a draft model of the same kind
    assert [type(layer) is glm.FusedGlm4Attention for layer in layers] == [bool(fused), False]
    said = [record.getMessage() for record in caplog_vllm.records if "two launches" in record.getMessage()]
    assert said == [f"rotary and the KV write are two launches: {reason}"]


def test_first_generation_checkpoints_are_warned_of(caplog_vllm):
    model = SimpleNamespace(hf_config=SimpleNamespace(position_encoding_2d=True))
    glm.warn_of_first_generation(SimpleNamespace(model_config=model))
    assert "position_encoding_2d" in caplog_vllm.text
    caplog_vllm.clear()
    glm.warn_of_first_generation(SimpleNamespace(model_config=SimpleNamespace(hf_config=SimpleNamespace())))
    assert caplog_vllm.text == ""


@pytest.fixture
def caplog_vllm(caplog, monkeypatch):
    """vLLM's loggers do not propagate to the root, where caplog listens."""
    import logging

    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    return caplog


def twelve_tokens(llm):
    from .engines import greedy

    return greedy(llm, [prompt(9)], max_tokens=12)


@pytest.mark.parametrize(
    ("kind", "kernel"),
    [
        ("glm4", "rotary_kv_write_v16_float"),
        ("glm", "rotary_kv_write_v16_float"),
        ("chatglm", "rotary_kv_write_v16_float"),
        ("glm4_moe", "norm_rotary_kv_write_v16_float"),
    ],
)
def test_one_launch_per_layer_and_step(kind, kernel):
    launches = run_ours(checkpoint(kind), twelve_tokens).launches
    assert launches[kernel] == 2 * 12  # layers x steps
    assert not any(name.startswith(("kv_write", "rotary_v", "mrope")) for name in launches), launches


def test_llama_rotates_and_writes_apart():
    """A model without a class of ours: its rotary layer still runs here."""
    launches = run_ours(checkpoint("llama"), twelve_tokens).launches
    assert launches["rotary_v16_float"] == launches["kv_write_v16_float"] == 2 * 12
