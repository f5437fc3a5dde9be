# SPDX-License-Identifier: Apache-2.0
"""vLLM's compile cache in two processes, one with rocmforge's position layer and one without, over one folder.

vLLM keeps whole compiled models in it, found by a hash of the configuration, in which replaced layers do not appear.
The mode is that of GPUs, since the CPU's reads nothing back. Attention is the host's and the configuration the same in
both processes; only the layer differs.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from vllm import envs
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.layers.rotary_embedding import get_rope

import rocmforge_plugin
from rocmforge_plugin.vllm import compile_cache
from rocmforge_plugin.vllm.position import layers

from .engines import checkpoint, greedy, prompt
from .piecewise import piecewise_engine

LAYERS, STEPS = 1, 4


def plain_factors() -> tuple[dict[str, object], str]:
    """The environment's part of the hash, and a configuration's that no layer has marked."""
    layers.register()
    return envs.compile_factors(), VllmConfig().compute_hash()


def test_a_model_that_finds_its_rotary_layer_built_is_marked(reference):
    """As a draft model does that shares the target's."""
    ours, theirs = plain_factors(), reference.pool.submit(plain_factors).result()
    target, draft = VllmConfig(), VllmConfig()
    for config in (target, draft):
        with set_current_vllm_config(config):
            get_rope(64, 1024, True, {"rope_type": "default", "rope_theta": 7.0})
    assert "rocmforge_rotary" in target.additional_config and draft.additional_config == {}
    assert ours[1] == theirs[1] == draft.compute_hash()
    assert ours[0].pop(compile_cache.SWITCH) != theirs[0].pop(compile_cache.SWITCH) == "0"
    assert ours[0] == theirs[0]


class Outcome(NamedTuple):
    """Of one engine's life."""

    tokens: list[int]
    rotations: int  # launches of rocmforge's rotary kernels
    saved: int  # compiled models that went to the cache
    loaded: int  # and that came from it


def live(model: str, cache: str) -> Outcome:
    """Start an engine over the cache `cache`, generate, end it."""
    from vllm.compilation.counter import compilation_counter

    before = compilation_counter.clone()
    with piecewise_engine(model, "CPU_ATTN", "float32", cache) as llm:
        tokens = greedy(llm, [prompt(9)], max_tokens=STEPS)[0].tokens
        rotations = sum(count for name, count in rocmforge_plugin.launches().items() if "rotary" in name)
    return Outcome(
        tokens,
        rotations,
        compilation_counter.num_aot_artifacts_saved - before.num_aot_artifacts_saved,
        compilation_counter.num_aot_artifacts_loaded - before.num_aot_artifacts_loaded,
    )


@pytest.mark.parametrize("order", [("on", "off", "on"), ("off", "on")], ids=("on first", "off first"))
def test_processes_never_share_a_graph(order, reference, tmp_path):
    """Llama, which has no class of ours. A second time the same process finds its own graph, so the cache is in use."""
    model = checkpoint("llama", num_hidden_layers=LAYERS)
    seen: dict[str, Outcome] = {}
    for side in order:
        if side == "on":
            outcome = live(model, str(tmp_path))
        else:
            outcome = reference.pool.submit(live, model, str(tmp_path)).result()
        assert outcome.rotations == (LAYERS * STEPS if side == "on" else 0), (side, outcome)
        assert (outcome.saved, outcome.loaded) == ((0, 1) if side in seen else (1, 0)), (side, outcome)
        seen[side] = outcome
    assert seen["on"].tokens == seen["off"].tokens
