# SPDX-License-Identifier: Apache-2.0
"""GLM-4 and GLM-4.5 decoders for training, with parameters named as Hugging Face's checkpoints name them.

glm4: sandwich norms, interleaved rotary over half of each head, grouped-query attention, fused gate and up.
glm4_moe: NeoX rotary over half of each head, query/key norms, a last layer of routed experts plus a shared one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of one checkpoint; `arch` is glm4 or glm4_moe."""

    arch: str = "glm4"
    vocab: int = 264
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head: int = 128
    rotary: int = 64
    ff: int = 512
    expert_ff: int = 128
    experts: int = 4
    chosen: int = 2
    eps: float = 1e-5
    theta: float = 10000.0

    @property
    def moe(self) -> bool:
        """Whether this is the GLM-4.5 architecture."""
        return self.arch == "glm4_moe"


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm in float32 over the last dimension."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def angles(length: int, shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, each float32 [length, rotary / 2]."""
    steps = torch.arange(0, shape.rotary, 2, dtype=torch.float32, device=device) / shape.rotary
    phase = torch.arange(length, dtype=torch.float32, device=device)[:, None] * shape.theta**-steps
    return phase.cos(), phase.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Rotate the first 2 * cos.shape[-1] elements of x [batch, heads, length, head]."""
    width = 2 * cos.shape[-1]
    turned, kept = x[..., :width].float(), x[..., width:]
    if interleaved:
        even, odd = turned[..., 0::2], turned[..., 1::2]
        turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)
    else:
        low, high = turned.chunk(2, -1)
        turned = torch.cat((low * cos - high * sin, high * cos + low * sin), -1)
    return torch.cat((turned.to(x.dtype), kept), -1)


class Attention(nn.Module):
    """Grouped-query attention with partial rotary embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head, shape.hidden, bias=False)
        if shape.moe:
            self.q_norm, self.k_norm = Norm(shape.head, shape.eps), Norm(shape.head, shape.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        shape = self.shape
        q = self.q_proj(x).view(batch, length, shape.heads, shape.head)
        k = self.k_proj(x).view(batch, length, shape.kv_heads, shape.head)
        v = self.v_proj(x).view(batch, length, shape.kv_heads, shape.head).transpose(1, 2)
        if shape.moe:
            q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q.transpose(1, 2), cos, sin, not shape.moe)
        k = rotate(k.transpose(1, 2), cos, sin, not shape.moe)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, shape.heads * shape.head))


class Norm(nn.Module):
    """RMS norm with a learned weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return norm(x, self.weight, self.eps)


class FusedMlp(nn.Module):
    """GLM-4's gated MLP: gate and up in one matrix."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.Linear(hidden, 2 * width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Mlp(nn.Module):
    """GLM-4.5's gated MLP: gate and up apart."""

    def __init__(self, hidden: int, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, width, bias=False)
        self.up_proj = nn.Linear(hidden, width, bias=False)
        self.down_proj = nn.Linear(width, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Gate(nn.Module):
    """The router: sigmoid scores, a selection bias that stays zero here."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape.experts, shape.hidden) * shape.hidden**-0.5)
        self.register_buffer("e_score_correction_bias", torch.zeros(shape.experts))


class Moe(nn.Module):
    """Routed experts plus a shared one; every expert is computed and weighted, which is cheap at this size."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate = Gate(shape)
        self.experts = nn.ModuleList(Mlp(shape.hidden, shape.expert_ff) for _ in range(shape.experts))
        self.shared_experts = Mlp(shape.hidden, shape.expert_ff)
        self.chosen = shape.chosen

    def forward(self, x: Tensor) -> Tensor:
        # The router decides in float32, also under autocast.
        with torch.autocast(x.device.type, enabled=False):
            scores = (x.float() @ self.gate.weight.float().t()).sigmoid()
            top, index = scores.topk(self.chosen, -1)
            top = top / (top.sum(-1, keepdim=True) + 1e-20)
            weights = torch.zeros_like(scores).scatter(-1, index, top).to(x.dtype)
        out = self.shared_experts(x)
        for place, expert in enumerate(self.experts):
            out = out + expert(x) * weights[..., place, None]
        return out


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.input_layernorm = Norm(shape.hidden, shape.eps)
        self.post_attention_layernorm = Norm(shape.hidden, shape.eps)
        self.sandwich = not shape.moe
        if self.sandwich:
            self.post_self_attn_layernorm = Norm(shape.hidden, shape.eps)
            self.post_mlp_layernorm = Norm(shape.hidden, shape.eps)
            self.mlp: nn.Module = FusedMlp(shape.hidden, shape.ff)
        elif index < shape.layers - 1:
            self.mlp = Mlp(shape.hidden, shape.ff)
        else:
            self.mlp = Moe(shape)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        mixed = self.self_attn(self.input_layernorm(x), cos, sin)
        x = x + (self.post_self_attn_layernorm(mixed) if self.sandwich else mixed)
        mixed = self.mlp(self.post_attention_layernorm(x))
        return x + (self.post_mlp_layernorm(mixed) if self.sandwich else mixed)


class Trunk(nn.Module):
    """Embedding, layers and the last norm (the `model.` prefix of a checkpoint)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape, index) for index in range(shape.layers))
        self.norm = Norm(shape.hidden, shape.eps)


class Model(nn.Module):
    """Causal language model; forward maps token ids [batch, length] to float32 logits [batch, length, vocab]."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.lm_head = nn.Linear(shape.hidden, shape.vocab, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        nn.init.normal_(self.model.embed_tokens.weight, std=1.0)
        nn.init.normal_(self.lm_head.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        cos, sin = angles(ids.shape[1], self.shape, ids.device)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.model.norm(x)).float()


def config(shape: Shape) -> dict[str, object]:
    """The Hugging Face config.json of a checkpoint of this shape."""
    common: dict[str, object] = {
        "architectures": ["Glm4MoeForCausalLM" if shape.moe else "Glm4ForCausalLM"],
        "model_type": shape.arch,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": [256, 260],
        "pad_token_id": 256,
        "head_dim": shape.head,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.ff,
        "max_position_embeddings": 2560,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "partial_rotary_factor": shape.rotary / shape.head,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": shape.theta,
            "partial_rotary_factor": shape.rotary / shape.head,
        },
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": shape.vocab,
    }
    if shape.moe:
        common |= {
            "first_k_dense_replace": shape.layers - 1,
            "moe_intermediate_size": shape.expert_ff,
            "n_group": 1,
            "n_routed_experts": shape.experts,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": shape.chosen,
            "num_nextn_predict_layers": 0,
            "routed_scaling_factor": 1.0,
            "topk_group": 1,
            "use_qk_norm": True,
        }
    return common
