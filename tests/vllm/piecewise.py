# SPDX-License-Identifier: Apache-2.0
"""Engines on the CPU that compile as vLLM does on GPUs: in pieces, through its own passes and its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from vllm.config import VllmConfig

from .engines import engine


def unchanged(config: VllmConfig) -> None:
    """The configuration as the platform leaves it, but for the mode."""
    del config


@contextmanager
def piecewise_engine(
    model: str, backend: str, dtype: str, cache: str, change: Callable[[VllmConfig], None] = unchanged, **settings: Any
) -> Iterator[Any]:
    """As `engine`, over the compile cache `cache`.

    The CPU platform replaces this mode by one of its own; here its choice is undone, and `change` may set what it
    would have refused.
    """
    from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass
    from vllm.config import CompilationMode
    from vllm.platforms import current_platform

    platform = type(current_platform)
    update = platform.check_and_update_config

    def keep_mode(config: VllmConfig) -> None:
        update(config)
        config.compilation_config.mode = CompilationMode.VLLM_COMPILE
        config.compilation_config.compile_sizes = []  # the platform's mode leaves it unset
        change(config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "check_and_update_config", staticmethod(keep_mode))
        # It names ops that only GPU builds have; inductor takes care of those that are left.
        patch.setattr(FixFunctionalizationPass, "__call__", lambda self, graph: None)
        patch.setenv("VLLM_CACHE_ROOT", cache)
        with engine(model, backend, dtype, enforce_eager=False, **settings) as llm:
            yield llm
