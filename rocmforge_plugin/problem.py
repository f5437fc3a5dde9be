# SPDX-License-Identifier: Apache-2.0
"""What attention computes, apart from the batch: the name that plans, kernels and vLLM's selection share.

csrc/launch/problem.h is the host module's side of it, kernels/attention/problem/ the kernels'.
"""

from __future__ import annotations

from dataclasses import dataclass

from rocmforge_plugin import served


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of attention. Layers that agree in it share kernels and plans.

    Attributes:
        dtype: of queries, cache and output, as torch names it ("bfloat16"); a torch.dtype becomes its name.
        num_heads: query heads.
        num_kv_heads: KV heads, each of which serves num_heads / num_kv_heads query heads.
        key_dims: elements of a query's and a key's head.
        value_dims: elements of a value's and a result's head.
        window: keys a query sees, its own included; 0 for all.
        format: how keys and values lie in the cache; "joined": a key and its value in one row.
        score: what becomes of a product of query and key before the softmax; "plain": it is scaled.
        core: another matrix core than the device's own, on the CPU only: for tests.
    """

    dtype: str
    num_heads: int
    num_kv_heads: int
    key_dims: int
    value_dims: int
    window: int = 0
    format: str = "joined"
    score: str = "plain"
    core: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", str(self.dtype).removeprefix("torch."))

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def suffix(self) -> str:
        """How the names of this problem's kernels end, such as ``bf16_d128``; csrc/launch/problem.h spells the same."""
        return "_".join([served.ELEMENTS[self.dtype], f"d{self.key_dims}", *([self.core] if self.core else [])])
