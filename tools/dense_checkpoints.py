# SPDX-License-Identifier: Apache-2.0
"""Models for `tools.checkpoints` whose attention does more to its scores than scale them, or has other heads than most.

Each takes the shape and the common settings of that module, and is small and random as all of them are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# So small that it changes most scores: theirs are a few units, as the weights are spread.
SOFT_CAP = 3.0
WINDOW = 24  # of every second layer, unless the shape says otherwise


def _only(common: dict[str, Any], *names: str, **renamed: str) -> dict[str, Any]:
    """Some of the settings, some of them by other names."""
    return {name: common[name] for name in names} | {new: common[name] for new, name in renamed.items()}


def gemma2(common: dict[str, Any], window: int) -> Any:
    """Soft-capped scores; a window in every second layer."""
    import transformers as hf

    config = hf.Gemma2Config(
        **common,
        attn_logit_softcapping=SOFT_CAP,
        query_pre_attn_scalar=common["head_dim"],
        sliding_window=window or WINDOW,
        bos_token_id=common["pad_token_id"],
    )
    return hf.Gemma2ForCausalLM(config)


def bloom(common: dict[str, Any], window: int) -> Any:
    """ALiBi, and heads of hidden_size / num_attention_heads."""
    import transformers as hf

    return hf.BloomForCausalLM(
        hf.BloomConfig(
            **_only(
                common,
                *("vocab_size", "hidden_size", "eos_token_id", "pad_token_id", "initializer_range"),
                n_layer="num_hidden_layers",
                n_head="num_attention_heads",
            ),
            bos_token_id=common["pad_token_id"],
        )
    )


def _falcon(common: dict[str, Any], **kind: bool) -> Any:
    import transformers as hf

    names = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"),
        *("eos_token_id", "pad_token_id", "initializer_range"),
    )
    return hf.FalconForCausalLM(hf.FalconConfig(**_only(common, *names), bos_token_id=common["pad_token_id"], **kind))


def falcon(common: dict[str, Any], window: int) -> Any:
    """As Falcon-7B: one KV head, rotary, attention and MLP side by side."""
    return _falcon(common, alibi=False, multi_query=True, parallel_attn=True, bias=False)


def falcon_rw(common: dict[str, Any], window: int) -> Any:
    """As Falcon-RW: ALiBi, whose slopes are scaled with the scores, and a KV head for each query head."""
    return _falcon(common, alibi=True, multi_query=False, parallel_attn=False, bias=True)


def gpt_oss(common: dict[str, Any], window: int) -> Any:
    """Attention sinks, which are as large as scores are; a window in every second layer; experts."""
    import torch
    import transformers as hf

    config = hf.GptOssConfig(
        **common,
        num_local_experts=4,
        num_experts_per_tok=2,
        sliding_window=window or WINDOW,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    )
    model = hf.GptOssForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("sinks"):
                parameter.copy_(torch.randn_like(parameter) * 3)
    return model


MODELS: dict[str, Callable[[dict[str, Any], int], Any]] = {
    "gemma2": gemma2,
    "bloom": bloom,
    "falcon": falcon,
    "falcon_rw": falcon_rw,
    "gpt_oss": gpt_oss,
}
