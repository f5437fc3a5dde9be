# SPDX-License-Identifier: Apache-2.0
"""Muon for the matrices, AdamW for the rest."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def orthogonalize(stack: Tensor) -> Tensor:
    """Nearest semi-orthogonal matrices of a stack [n, rows, columns], by five quintic Newton-Schulz steps.

    The singular values end near one, not at one; the update needs no more. Computed in bfloat16.
    """
    x = stack.to(torch.bfloat16)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.mT if tall else x).to(stack.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, then orthogonalized: every direction of a weight matrix moves alike.

    Matrices of one shape are updated as one stack, so a step costs a handful of launches.
    """

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for shape, matrices in shapes.items():
                state = self.state[matrices[0]]
                gradient = torch.stack([m.grad for m in matrices])
                velocity = state.setdefault("velocity", torch.zeros_like(gradient))
                velocity.lerp_(gradient, 1 - group["momentum"])
                update = orthogonalize(gradient.lerp(velocity, group["momentum"]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["decay"])
                torch._foreach_add_(matrices, list(update.unbind(0)), alpha=-scale)


def optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon over the hidden matrices, AdamW over embeddings, head, router and norms."""
    matrices, wide, small = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2 or "gate.weight" in name:
            small.append(parameter)
        elif "embed_tokens" in name or "lm_head" in name:
            wide.append(parameter)
        else:
            matrices.append(parameter)
    groups = [{"params": wide, "lr": 3e-3}, {"params": small, "lr": 2e-3}]
    fused = matrices[0].is_cuda
    return [Muon(matrices, lr=0.02), torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)]
