# SPDX-License-Identifier: Apache-2.0
"""vLLM's settings as the tables of what is served read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from vllm.v1.attention.backend import AttentionType


def plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same with dtypes and attention types by their names."""
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return value.value if isinstance(value, AttentionType) else value
