# SPDX-License-Identifier: Apache-2.0
"""A fault for a running server: vLLM worker extension whose method a client calls, besides the launch counts."""

from __future__ import annotations

from typing import Any

from rocmforge_plugin.vllm.report import LaunchCounts


class Planted(LaunchCounts):
    """Adds what POST /collective_rpc calls in every worker."""

    model_runner: Any  # the worker's that this extends

    def scale_attention(self, factor: float) -> list[str]:
        """Multiply the scale of every attention layer; returns the classes of their implementations."""
        found = [module.impl for module in self.model_runner.model.modules() if hasattr(module, "impl")]
        for impl in found:
            impl.scale *= factor
        return [type(impl).__name__ for impl in found]
