# SPDX-License-Identifier: Apache-2.0
"""vLLM's own ROCm platform, with the device query stubbed, asked for rocmforge on every architecture.

Only what a GPU would answer is made up (conftest.py). Latent attention is in test_mla_selection.py.
"""

import dataclasses
import sys
from typing import Any

import pytest
import torch
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.attention.selector import AttentionSelectorConfig

from rocmforge_plugin import served
from rocmforge_plugin.vllm import BACKEND_PATH, register
from rocmforge_plugin.vllm.backend.target import ROCM_ARCHS

ARCHS = [arch for archs in ROCM_ARCHS.values() for arch in archs]
GPU_NAMES = {"gfx90a": "gfx90a:sramecc+:xnack-", "gfx942": "gfx942:sramecc+:xnack-", "gfx950": "gfx950:sramecc+:xnack-"}


def layer(head_size, heads, kv_heads, **settings):
    """A layer as vLLM's selector and as the implementation's constructor see it."""
    soft_cap = settings.pop("soft_cap", None)
    window = settings.pop("window", None)
    slopes = [0.5] * heads if settings.pop("alibi", False) else None
    settings.setdefault("has_sliding_window", window is not None)
    config = AttentionSelectorConfig(
        head_size=head_size,
        dtype=torch.bfloat16,
        kv_cache_dtype="auto",
        block_size=settings.pop("block_size", None),
        **settings,
    )
    return config, (heads, head_size, head_size**-0.5, kv_heads, slopes, window, "auto", soft_cap, "decoder", None)


SERVED = {
    "GLM-4-9B": layer(128, 32, 2),
    "GLM-4-32B": layer(128, 48, 2),
    "GLM-4-32B at TP 2": layer(128, 24, 1),
    "GLM-4.5": layer(128, 96, 8),
    "GLM-OCR": layer(128, 16, 8),
    "Llama-3-8B": layer(128, 32, 8),
    "Llama-3.2-1B": layer(64, 32, 8),
    "Gemma-3-4B global": layer(256, 8, 4),
    "Gemma-3-4B local": layer(256, 8, 4, window=1024),
    "Gemma-3-4B local, with images": layer(256, 8, 4, window=1024, use_mm_prefix=True),
    "Gemma-4-31B global, with images": layer(512, 32, 4, use_mm_prefix=True),
    "DFlash draft": layer(128, 32, 8, use_non_causal=True),
    "gpt-oss-20b": layer(64, 64, 8, window=128, has_sink=True),
    "gpt-oss-20b full": layer(64, 64, 8, has_sink=True),
    "Qwen2.5-7B": layer(128, 28, 4),
    "Qwen3-30B-A3B": layer(128, 32, 4, block_size=64),
    "Qwen3-Next attention": layer(256, 16, 2),
    "Phi-2": layer(80, 32, 32),
    "Gemma-2-9B local": layer(256, 16, 8, window=4096, soft_cap=50.0),
    "Gemma-4 global": layer(512, 16, 2),
    "Bloom-7B": layer(128, 32, 32, alibi=True),
    "Falcon-7B": layer(64, 71, 1),
    "GPT-J-like head 72": layer(72, 16, 16),
}


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_serves_every_geometry(arch, rocm):
    from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl

    platform = rocm(GPU_NAMES.get(arch, arch))
    member = register.backend_member()
    for name, (config, arguments) in SERVED.items():
        chosen = platform.get_attn_backend_cls(member, config, num_heads=arguments[0])
        assert chosen == BACKEND_PATH, name
        sinks = {"sinks": torch.zeros(arguments[0])} if config.has_sink else {}
        impl = RocmForgeImpl(*arguments, **sinks)
        problem = impl.problem(torch.bfloat16)
        assert (problem.num_heads, problem.num_kv_heads) == (arguments[0], arguments[3]), name
        assert (problem.key_dims, problem.window) == (config.head_size, arguments[5] or 0), name
        assert problem.score == ("capped" if arguments[7] else "biased" if arguments[4] else "plain"), name


@pytest.mark.parametrize(
    ("name", "refused", "named"),
    [
        ("two intervals of keys", layer(256, 8, 4, use_rswa=True), "use_rswa"),
        ("heads of 264", layer(264, 16, 16), "head_size is 264"),
        ("head of 68", layer(68, 16, 16), "head_size is 68"),
        ("encoder with sinks", layer(64, 12, 12, attn_type="encoder_only", has_sink=True), "sinks of an encoder"),
        ("fp8 cache", (layer(128, 32, 2)[0]._replace(kv_cache_dtype="fp8"), None), "--kv-cache-dtype"),
        ("fp32", (layer(128, 32, 2)[0]._replace(dtype=torch.float32), None), "--dtype"),
    ],
)
def test_vllm_refuses_with_the_reason(name, refused, named, rocm):
    with pytest.raises(ValueError, match="not valid for this configuration") as raised:
        rocm("gfx942").get_attn_backend_cls(register.backend_member(), refused[0], num_heads=32)
    assert named in str(raised.value)


def test_what_the_selection_does_not_see_is_refused_by_the_layer(rocm):
    from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl

    config, arguments = layer(256, 16, 8, soft_cap=50.0, alibi=True)
    platform = rocm("gfx1100")
    assert platform.get_attn_backend_cls(register.backend_member(), config) == BACKEND_PATH
    with pytest.raises(ValueError, match="logits_soft_cap=50.0"):
        RocmForgeImpl(*arguments)


@pytest.mark.parametrize("arch", ["gfx1030", "gfx908", "gfx1250"])
def test_an_architecture_without_code_is_refused(arch, rocm):
    platform = rocm(arch, built=["gfx942", "gfx1100"])
    with pytest.raises(ValueError, match=f"no kernels for {arch}; it has: gfx1100, gfx942") as raised:
        platform.get_attn_backend_cls(register.backend_member(), SERVED["GLM-4-9B"][0])
    assert f"ROCMFORGE_TARGETS={arch}" in str(raised.value)


def test_vllms_own_selection_agrees(rocm):
    """As for a process that has the name and not yet the selection."""
    platform = rocm("gfx942")
    unadopted: Any = type(platform).__mro__[2]
    assert unadopted.__name__ == "RocmPlatform"
    member = register.backend_member()
    assert unadopted.get_attn_backend_cls(member, SERVED["GLM-4-9B"][0]) == BACKEND_PATH
    with pytest.raises(ValueError, match="head_size is 576"):
        unadopted.get_attn_backend_cls(member, layer(576, 20, 1, use_mla=True)[0])


def test_generic_code_serves_a_relative(rocm):
    platform = rocm("gfx1102", built=["gfx11-generic"])
    assert platform.get_attn_backend_cls(register.backend_member(), SERVED["GLM-4-9B"][0]) == BACKEND_PATH


def test_vllm_does_not_pick_rocmforge_unasked(rocm):
    rocm("gfx942")
    names = [backend.name for backend in sys.modules["vllm.platforms.rocm"]._get_backend_priorities(False, False)]
    assert "ROCM_ATTN" in names and "ROCMFORGE" not in names


def test_metadata_passes_the_drafters_list_on_rocm(rocm, monkeypatch):
    """vLLM's V1 runner drafts on ROCm only with metadata of classes it knows."""
    rocm("gfx942")
    from vllm.v1.attention.backends.rocm_attn import RocmAttentionMetadata

    from rocmforge_plugin.vllm.backend import metadata

    monkeypatch.setattr(metadata, "current_platform", sys.modules["vllm.platforms.rocm"].RocmPlatform())
    assert metadata.metadata_base() is RocmAttentionMetadata
    ours = {field.name for field in dataclasses.fields(metadata.RocmForgeMetadata)}
    assert {field.name for field in dataclasses.fields(RocmAttentionMetadata)} <= ours


def test_every_architecture_that_is_served_is_recognised():
    assert sorted(ARCHS) == sorted(served.AMD_ARCHS)


def test_every_helper_exists_in_this_vllm(rocm):
    rocm("gfx942")
    module = sys.modules["vllm.platforms.rocm"]
    assert all(hasattr(module, helper) for helper in ROCM_ARCHS)
    assert "ROCMFORGE" in AttentionBackendEnum.__members__
