# SPDX-License-Identifier: Apache-2.0
"""Sizes of the small checkpoints, and the Hugging Face config.json that says them."""

from __future__ import annotations

from dataclasses import dataclass

ARCHITECTURES = {"glm4": "Glm4ForCausalLM", "glm4_moe": "Glm4MoeForCausalLM", "glm4_moe_lite": "Glm4MoeLiteForCausalLM"}


@dataclass(frozen=True)
class Latent:
    """Sizes of multi-head latent attention: GLM-4.7-Flash's, which kernels are made for, but for the query's."""

    query: int = 64
    kv: int = 512
    plain: int = 192
    rotary: int = 64
    value: int = 256


@dataclass(frozen=True)
class Experts:
    """Routed experts: `chosen` of `count`, all from the `chosen_groups` best of `groups`; their sum times `scale`."""

    count: int = 4
    width: int = 128
    chosen: int = 2
    groups: int = 1
    chosen_groups: int = 1
    scale: float = 1.0


@dataclass(frozen=True)
class Shape:
    """Sizes of one checkpoint; `arch` is a key of ARCHITECTURES.

    dense: how many layers come before those with experts. latent: None where attention keeps keys and values.
    """

    arch: str = "glm4"
    vocab: int = 264
    hidden: int = 256
    layers: int = 4
    dense: int = 4
    heads: int = 4
    kv_heads: int = 2
    head: int = 128
    rotary: int = 64
    ff: int = 512
    experts: Experts | None = None
    latent: Latent | None = None
    eps: float = 1e-5
    theta: float = 10000.0

    @property
    def sandwich(self) -> bool:
        """Whether a norm also follows attention and MLP, and gate and up are one matrix."""
        return self.arch == "glm4"

    @property
    def interleaved(self) -> bool:
        """Whether rotary pairs are neighbours."""
        return self.arch != "glm4_moe"


def shape(arch: str, hidden: int, ff: int) -> Shape:
    """The sizes of an architecture's checkpoint."""
    if arch == "glm4_moe":
        return Shape(arch, hidden=hidden, ff=ff, dense=3, experts=Experts())
    if arch == "glm4_moe_lite":
        # Transformers norms the latents with 1e-6 whatever the configuration says, vLLM with what it says.
        routed = Experts(count=8, width=32, groups=4, chosen_groups=2, scale=1.8)
        return Shape(arch, hidden=hidden, ff=ff, layers=3, dense=1, experts=routed, latent=Latent(), eps=1e-6)
    return Shape(arch, hidden=hidden, ff=ff)


def config(shape: Shape) -> dict[str, object]:
    """The Hugging Face config.json of a checkpoint of this shape."""
    common: dict[str, object] = {
        "architectures": [ARCHITECTURES[shape.arch]],
        "model_type": shape.arch,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": [256, 260],
        "pad_token_id": 256,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.ff,
        "max_position_embeddings": 2560,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab,
    }
    rope: dict[str, object] = {"rope_type": "default", "rope_theta": shape.theta}
    if shape.latent:
        common |= {
            "num_key_value_heads": shape.heads,
            "q_lora_rank": shape.latent.query,
            "kv_lora_rank": shape.latent.kv,
            "qk_nope_head_dim": shape.latent.plain,
            "qk_rope_head_dim": shape.latent.rotary,
            "v_head_dim": shape.latent.value,
            "rope_interleave": True,
        }
    else:
        rope["partial_rotary_factor"] = shape.rotary / shape.head
        common |= {
            "head_dim": shape.head,
            "num_key_value_heads": shape.kv_heads,
            "partial_rotary_factor": shape.rotary / shape.head,
        }
    common["rope_parameters"] = rope
    if shape.experts:
        common |= {
            "first_k_dense_replace": shape.dense,
            "moe_intermediate_size": shape.experts.width,
            "n_group": shape.experts.groups,
            "n_routed_experts": shape.experts.count,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": shape.experts.chosen,
            "num_nextn_predict_layers": 0,
            "routed_scaling_factor": shape.experts.scale,
            "topk_group": shape.experts.chosen_groups,
        }
    if shape.arch == "glm4_moe":
        common["use_qk_norm"] = True
    return common
