# SPDX-License-Identifier: Apache-2.0
"""vLLM's own fusion passes over this backend: what they call, that they find it, and that the plugin steps aside.

vLLM turns these passes on for ROCm only. Here they are put among the passes of an engine on the CPU, where the same
graph is matched; the ops for fp8 that their modules name and the CPU build lacks are declared, never called.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from vllm.config import CompilationConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import MRotaryEmbedding, RotaryEmbedding
from vllm.v1.attention.backend import AttentionImpl

import rocmforge_plugin
from rocmforge_plugin import reference
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from rocmforge_plugin.vllm.position import layers as replaced

from .engines import checkpoint, engine, greedy, largest, prompt, score
from .piecewise import piecewise_engine

STEPS = 4
HEADS, KV_HEADS, SIZE, BLOCK, TOKENS = 4, 2, 64, 16, 9
FP8_OPS = (
    "rms_norm_static_fp8_quant",
    "fused_add_rms_norm_static_fp8_quant",
    "rms_norm_dynamic_per_token_quant",
    "rms_norm_per_block_quant",
)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The passes of the engine to come, which vLLM's manager can make here as well."""
    library = torch.library.Library("_C", "FRAGMENT")
    for name in FP8_OPS:
        if not hasattr(torch.ops._C, name):
            library.define(f"{name}(Tensor x) -> ()")
    from vllm.compilation.passes import pass_manager
    from vllm.compilation.passes.fusion import rope_kvcache_fusion
    from vllm.compilation.passes.fusion.qk_norm_rope_kvcache_fusion import QkNormRopeKvCacheFusionPass
    from vllm.compilation.passes.utility.scatter_split_replace import ScatterSplitReplacementPass
    from vllm.compilation.passes.utility.split_coalescing import SplitCoalescingPass

    for one in (
        QkNormRopeKvCacheFusionPass,
        rope_kvcache_fusion.RopeKVCacheFusionPass,
        ScatterSplitReplacementPass,
        SplitCoalescingPass,
    ):
        monkeypatch.setattr(pass_manager, one.__name__, one, raising=False)
    # The pattern of an fp8 query names an op that the CPU has in another form.
    monkeypatch.setattr(rope_kvcache_fusion, "STATIC_FP8_QUANT_OP", None)
    configure, made = pass_manager.PostGradPassManager.configure, []

    def remember(self: Any, config: VllmConfig) -> None:
        configure(self, config)
        made.extend(self.passes)

    monkeypatch.setattr(pass_manager.PostGradPassManager, "configure", remember)
    return made


@pytest.mark.parametrize(
    ("kind", "layers", "setting", "kernel"),
    [
        ("glm4", 1, "fuse_rope_kvcache", "rotary_kv_write_v16_bf16"),
        ("glm4_moe", 2, "fuse_qk_norm_rope_kvcache", "norm_rotary_kv_write_v16_bf16"),
    ],
)
def test_the_pass_calls_the_fused_kernel(kind, layers, setting, kernel, passes, tmp_path):
    """GLM-4 with its KV write joined to rotary, GLM-4.5 with its head norms as well: one launch a layer and step."""

    def turn_on(config: VllmConfig) -> None:
        compilation = config.compilation_config
        setattr(compilation.pass_config, setting, True)
        compilation.pass_config.rope_kvcache_fusion_max_token_num = 256
        compilation.custom_ops.append("+rotary_embedding")
        compilation.splitting_ops = []

    model = checkpoint(kind, num_hidden_layers=layers)
    with piecewise_engine(model, "rocmforge", "bfloat16", str(tmp_path), turn_on) as llm:
        classes = llm.apply_model(lambda model: {type(module).__name__ for module in model.modules()})[0]
        rocmforge_plugin.reset_launches()
        greedy(llm, [prompt(9)], max_tokens=STEPS)
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        fused = score(llm, [prompt(40)["prompt_token_ids"]])[0]
    assert not any(name.startswith("Fused") for name in classes)  # the model's attention is vLLM's own
    assert max(getattr(one, "matched_count", 0) for one in passes) == layers
    assert {name: count for name, count in launches.items() if not name.startswith("attention")} == {
        kernel: layers * STEPS
    }
    # Eager, with the plugin's own classes, which round in other places.
    with engine(model, "rocmforge", "bfloat16") as llm:
        plain = score(llm, [prompt(40)["prompt_token_ids"]])[0]
    assert largest(abs(a - b) for a, b in zip(fused, plain, strict=True)) < 0.5


def arguments(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """QKV product, table, norm weights, an empty cache, and slots of all but the last token (padding)."""
    torch.manual_seed(0)
    angles = torch.outer(torch.arange(64.0), 10000 ** -(torch.arange(16) / 16))
    return {
        "qkv": torch.randn(TOKENS, (HEADS + 2 * KV_HEADS) * SIZE, dtype=dtype),
        "table": torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype),
        "q_weight": 1 + 0.3 * torch.randn(SIZE, dtype=dtype),
        "k_weight": 1 + 0.3 * torch.randn(SIZE, dtype=dtype),
        "cache": torch.zeros(3, KV_HEADS, BLOCK, 2 * SIZE, dtype=dtype),
        "slots": torch.tensor([5, 40, 17, 3, 20, 21, 30, 2]),
    }


def heads_of(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """query, key and value [tokens, heads, SIZE]."""
    return tuple(
        part.unflatten(1, (-1, SIZE)) for part in qkv.split([HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE], dim=1)
    )


@pytest.mark.parametrize("neox", [False, True])
@pytest.mark.parametrize("update", ["rope", "norm", "mrope"])
def test_updates_that_the_passes_ask_for(update, neox):
    """One launch each, with vLLM's order of arguments; k_out is not written, since attention reads the cache."""
    impl = RocmForgeImpl(HEADS, SIZE, 0.125, KV_HEADS)
    supported = {
        "rope": impl.fused_rope_kvcache_supported,
        "norm": impl.fused_qk_norm_rope_kvcache_supported,
        "mrope": impl.fused_qk_norm_mrope_kvcache_supported,
    }[update]
    assert supported() is True
    given = arguments()
    qkv, table, cache, slots = (given[name] for name in ("qkv", "table", "cache", "slots"))
    query, key, value = heads_of(qkv.clone())
    positions = torch.randint(0, 64, (3, TOKENS) if update == "mrope" else (TOKENS,))
    options: dict[str, Any] = {"head_size": SIZE, "interleaved": not neox}
    if update == "mrope":
        options["mrope_section"] = [4, 6, 6]
    weights = given["q_weight"], given["k_weight"]
    norms = None if update == "rope" else weights
    wanted = [
        reference.rotary(positions, reference.rms_norm(x, norms[index], 1e-6) if norms else x, table, **options)
        for index, x in enumerate((query, key))
    ]
    wanted_cache = reference.kv_write(wanted[1], value, cache, slots)
    out, k_out = torch.full_like(query, torch.nan), torch.full_like(key, torch.nan)
    rocmforge_plugin.reset_launches()
    if update == "rope":
        out = query
        impl.do_rope_and_kv_cache_update(None, query, key, value, positions, table, neox, cache, slots)
    elif update == "norm":
        impl.do_qk_norm_rope_kvcache_update(None, qkv, out, k_out, positions, *weights, 1e-6, table, neox, cache, slots)
        assert k_out.isnan().all()
    else:
        impl.do_qk_norm_mrope_kvcache_update(
            None, qkv, out, positions, *weights, 1e-6, table, neox, (4, 6, 6), False, 32, cache, slots
        )
    assert sum(rocmforge_plugin.launches().values()) == 1
    torch.testing.assert_close(out, wanted[0].float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cache, wanted_cache.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name", ["do_rope_and_kv_cache_update", "do_qk_norm_rope_kvcache_update", "do_qk_norm_mrope_kvcache_update"]
)
def test_updates_take_what_vllm_gives(name):
    """vLLM passes the arguments by position."""
    ours, theirs = (list(inspect.signature(getattr(one, name)).parameters) for one in (RocmForgeImpl, AttentionImpl))
    assert ours == theirs


@pytest.mark.parametrize("setting", ["fuse_rope_kvcache", "fuse_qk_norm_rope_kvcache", "enable_qk_norm_rope_fusion"])
def test_the_layer_steps_aside(setting):
    """The passes look for vLLM's own rotary op, so the layer must put it into the graph."""
    replaced.register()
    current = VllmConfig(compilation_config=CompilationConfig(custom_ops=["none", "+rotary_embedding"]))
    setattr(current.compilation_config.pass_config, setting, True)  # as on ROCm; a CPU's configuration clears it
    with set_current_vllm_config(current):
        layers = [
            RotaryEmbedding(SIZE, 32, 64, 10000.0, True, torch.float32),
            MRotaryEmbedding(SIZE, 32, 64, 10000.0, True, torch.float32, mrope_section=[4, 6, 6]),
        ]
    rocmforge_plugin.reset_launches()
    query, key, _ = (part.flatten(1) for part in heads_of(arguments()["qkv"]))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        for layer in layers:
            layer(torch.arange(TOKENS), query.clone(), key.clone())
    assert sum(rocmforge_plugin.launches().values()) == 0
    assert "_C::rotary_embedding" in {event.name for event in profile.events()}
