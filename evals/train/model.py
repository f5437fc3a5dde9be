# SPDX-License-Identifier: Apache-2.0
"""GLM-4, GLM-4.5 and GLM-4.7-Flash decoders for training, with parameters named as Hugging Face's checkpoints do.

glm4: sandwich norms, interleaved rotary over half of each head, grouped-query attention, fused gate and up.
glm4_moe: NeoX rotary over half of each head, query/key norms, a last layer of routed experts plus a shared one.
glm4_moe_lite: latent attention, interleaved rotary over the slice that heads share, experts in groups after one layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention, LatentAttention, Norm, angles
from .shape import Experts, Shape


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

    def __init__(self, hidden: int, experts: Experts) -> None:
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.randn(experts.count, hidden) * hidden**-0.5)
        self.register_buffer("e_score_correction_bias", torch.zeros(experts.count))

    def forward(self, x: Tensor) -> Tensor:
        """float32 [..., experts]: the share of each expert, zero of those that are not chosen."""
        experts = self.experts
        scores = (x.float() @ self.weight.float().t()).sigmoid()
        allowed = scores
        if experts.groups > 1:
            # A group is as good as its two best experts.
            groups = scores.unflatten(-1, (experts.groups, -1))
            best = groups.topk(2, -1).values.sum(-1).topk(experts.chosen_groups, -1).indices
            kept = torch.zeros_like(groups[..., 0]).scatter(-1, best, 1.0)
            allowed = (groups * kept[..., None]).flatten(-2)
        top, index = allowed.topk(experts.chosen, -1)
        top = experts.scale * top / (top.sum(-1, keepdim=True) + 1e-20)
        return torch.zeros_like(scores).scatter(-1, index, top)


class Moe(nn.Module):
    """Routed experts plus a shared one; every expert is computed and weighted, which is cheap at this size."""

    def __init__(self, hidden: int, experts: Experts) -> None:
        super().__init__()
        self.gate = Gate(hidden, experts)
        self.experts = nn.ModuleList(Mlp(hidden, experts.width) for _ in range(experts.count))
        self.shared_experts = Mlp(hidden, experts.width)

    def forward(self, x: Tensor) -> Tensor:
        # The router decides in float32, also under autocast.
        with torch.autocast(x.device.type, enabled=False):
            weights = self.gate(x).to(x.dtype)
        # As one MLP whose hidden elements are weighted by their expert: three products in place of three an expert.
        gate, up, down = (
            torch.cat([getattr(expert, name).weight for expert in self.experts], dim)
            for name, dim in (("gate_proj", 0), ("up_proj", 0), ("down_proj", 1))
        )
        inner = (F.silu(F.linear(x, gate)) * F.linear(x, up)).unflatten(-1, (len(self.experts), -1))
        return self.shared_experts(x) + F.linear((inner * weights[..., None]).flatten(-2), down)


class Layer(nn.Module):
    """One decoder layer."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.self_attn = LatentAttention(shape, shape.latent) if shape.latent else Attention(shape)
        self.input_layernorm = Norm(shape.hidden, shape.eps)
        self.post_attention_layernorm = Norm(shape.hidden, shape.eps)
        self.sandwich = shape.sandwich
        if self.sandwich:
            self.post_self_attn_layernorm = Norm(shape.hidden, shape.eps)
            self.post_mlp_layernorm = Norm(shape.hidden, shape.eps)
            self.mlp: nn.Module = FusedMlp(shape.hidden, shape.ff)
        elif index < shape.dense or shape.experts is None:
            self.mlp = Mlp(shape.hidden, shape.ff)
        else:
            self.mlp = Moe(shape.hidden, shape.experts)

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
        if shape.latent:
            # A query that looks at a place, whatever the token, needs what tokens have in common; a narrow latent of
            # random embeddings has little of that.
            with torch.no_grad():
                self.model.embed_tokens.weight.add_(torch.randn(shape.hidden))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.model.embed_tokens(ids)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        cos, sin = angles(ids.shape[1], self.shape, ids.device)
        for layer in self.model.layers:
            x = layer(x, cos, sin)
        return self.lm_head(self.model.norm(x)).float()
