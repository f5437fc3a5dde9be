# SPDX-License-Identifier: Apache-2.0
"""Faults planted into the rotary layers of a running engine: a comparison that one of them passes proves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def planted(llm: Any, layer: str, changes: dict[str, Callable[[Any], Any]]) -> Iterator[None]:
    """The model's layers of class `layer`, each named attribute replaced by what its function makes of it."""
    layers = llm.apply_model(lambda model: [module for module in model.modules() if type(module).__name__ == layer])[0]
    assert layers, f"the model has no {layer}"
    before = [{name: getattr(module, name) for name in changes} for module in layers]
    for module in layers:
        for name, change in changes.items():
            setattr(module, name, change(getattr(module, name)))
    try:
        yield
    finally:
        for module, values in zip(layers, before, strict=True):
            for name, value in values.items():
                setattr(module, name, value)


def flipped(is_neox: bool) -> bool:
    """The other pair layout."""
    return not is_neox


def half_table(table: torch.Tensor) -> torch.Tensor:
    """[positions, rotary_dim] with every second pair: a rotary part half as large."""
    cos, sin = table.chunk(2, dim=-1)
    return torch.cat((cos[:, ::2], sin[:, ::2]), dim=-1)
