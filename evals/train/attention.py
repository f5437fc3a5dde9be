# SPDX-License-Identifier: Apache-2.0
"""Norms, rotary embedding and both kinds of attention, with parameters named as Hugging Face's checkpoints do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .shape import Latent, Shape


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMS norm in float32 over the last dimension."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


class Norm(nn.Module):
    """RMS norm with a learned weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return norm(x, self.weight, self.eps)


def angles(length: int, shape: Shape, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, each float32 [length, rotary / 2]."""
    width = shape.latent.rotary if shape.latent else shape.rotary
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=device) / width
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
        self.normed = shape.arch == "glm4_moe"
        if self.normed:
            self.q_norm, self.k_norm = Norm(shape.head, shape.eps), Norm(shape.head, shape.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        shape = self.shape
        q = self.q_proj(x).view(batch, length, shape.heads, shape.head)
        k = self.k_proj(x).view(batch, length, shape.kv_heads, shape.head)
        v = self.v_proj(x).view(batch, length, shape.kv_heads, shape.head).transpose(1, 2)
        if self.normed:
            q, k = self.q_norm(q), self.k_norm(k)
        q = rotate(q.transpose(1, 2), cos, sin, shape.interleaved)
        k = rotate(k.transpose(1, 2), cos, sin, shape.interleaved)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, shape.heads * shape.head))


class LatentAttention(nn.Module):
    """Multi-head latent attention: keys and values of all heads from one latent a token, and a rotated slice that the
    heads' keys share.
    """

    def __init__(self, shape: Shape, sizes: Latent) -> None:
        super().__init__()
        self.heads, self.sizes = shape.heads, sizes
        self.q_a_proj = nn.Linear(shape.hidden, sizes.query, bias=False)
        self.q_a_layernorm = Norm(sizes.query, shape.eps)
        self.q_b_proj = nn.Linear(sizes.query, shape.heads * (sizes.plain + sizes.rotary), bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(shape.hidden, sizes.kv + sizes.rotary, bias=False)
        self.kv_a_layernorm = Norm(sizes.kv, shape.eps)
        self.kv_b_proj = nn.Linear(sizes.kv, shape.heads * (sizes.plain + sizes.value), bias=False)
        self.o_proj = nn.Linear(shape.heads * sizes.value, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        sizes = self.sizes
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))
        q = q.view(batch, length, self.heads, sizes.plain + sizes.rotary).transpose(1, 2)
        q_plain, q_turned = q.split((sizes.plain, sizes.rotary), -1)
        latent, k_turned = self.kv_a_proj_with_mqa(x).split((sizes.kv, sizes.rotary), -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent))
        kv = kv.view(batch, length, self.heads, sizes.plain + sizes.value).transpose(1, 2)
        k_plain, v = kv.split((sizes.plain, sizes.value), -1)
        k_turned = rotate(k_turned[:, None], cos, sin, True).expand(-1, self.heads, -1, -1)
        q = torch.cat((q_plain, rotate(q_turned, cos, sin, True)), -1)
        out = F.scaled_dot_product_attention(q, torch.cat((k_plain, k_turned), -1), v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, self.heads * sizes.value))
