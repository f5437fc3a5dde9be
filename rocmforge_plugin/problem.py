# SPDX-License-Identifier: Apache-2.0
"""What attention computes, apart from the batch: the name that plans, kernels and vLLM's selection share.

csrc/launch/problem.h is the host module's side of it, kernels/attention/problem/ the kernels'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from rocmforge_plugin import served


class Refusal(NamedTuple):
    """A field that has no kernel for what came; as text, in the form that all messages have."""

    field: str
    came: object
    works: str

    def __str__(self) -> str:
        return f"{self.field} is {self.came}; it must be {self.works}"


def kernel_suffix(element: str, format: str, score: str, key_dims: int, value_dims: int, core: str = "") -> str:
    """How the names of a problem's kernels end, such as ``bf16_d128``: what is usual is not named."""
    dims = f"d{key_dims}" if key_dims == value_dims else f"d{key_dims}v{value_dims}"
    parts = (element, dims, "" if format == "joined" else format, "" if score == "plain" else score, core)
    return "_".join(part for part in parts if part)


def combine_suffix(element: str, value_dims: int) -> str:
    """As `kernel_suffix`, for the kernel that joins partial results: it only knows results."""
    return f"{element}_d{value_dims}"


_NAME = re.compile(
    rf"(?P<kernel>\w+?)(?:_v(?P<width>\d+))?_(?P<element>{'|'.join(served.ELEMENTS.values())})"
    r"(?:_d(?P<dims>\d+(?:v\d+)?)(?P<kind>(?:_[a-z]\w*?)?)(?:_(?P<core>[A-Z]\w*))?)?"
)


class KernelName(NamedTuple):
    """A kernel's name, taken apart; a part that it has not is empty.

    Attributes:
        kernel: what it computes, such as ``attention_prefill``, ``kv_write``.
        width: bytes of its memory accesses.
        element: type of the elements, as `served.ELEMENTS` spells it.
        dims: of a head, ``128`` or ``576v512``.
        kind: what else its problem has that is not usual.
        core: matrix core other than the target's own.
    """

    kernel: str
    width: str = ""
    element: str = ""
    dims: str = ""
    kind: str = ""
    core: str = ""

    @classmethod
    def parse(cls, name: str) -> KernelName:
        """The parts of any kernel's name."""
        found = _NAME.fullmatch(name)
        if found is None:
            return cls(name)
        return cls(**{part: (text or "").removeprefix("_") for part, text in found.groupdict().items()})


@dataclass(frozen=True, slots=True)
class Problem:
    """One kind of attention. Layers that agree in it share kernels and plans.

    Attributes:
        dtype: of queries, keys, values and output, as torch names it ("bfloat16"); a torch.dtype becomes its name.
        num_heads: query heads.
        num_kv_heads: KV heads, each of which serves num_heads / num_kv_heads query heads.
        key_dims: elements of a query's and a key's head.
        value_dims: elements of a value's and a result's head.
        window: keys a query sees, its own included; 0 for all.
        format: how keys and values lie in memory; "joined": in pages, a key and its value in one row; "latent": in
            pages, keys whose first elements are the value; "split": in two tensors without pages.
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
        """How the names of this problem's kernels end, such as ``bf16_d128``."""
        return kernel_suffix(
            served.ELEMENTS[self.dtype], self.format, self.score, self.key_dims, self.value_dims, self.core
        )

    @property
    def op(self) -> str:
        """Which of ``rocmforge_plugin.ops`` computes it: how keys lie decides."""
        return served.OPS.get(self.format, "paged_attention")

    def refusals(self, target: str) -> list[Refusal]:
        """Why there are no kernels for this on a target ("amd", "nvidia" or "cpu"); empty if there are."""
        found = []

        def demand(holds: bool, field: str, came: object, works: str) -> None:
            if not holds:
                found.append(Refusal(field, came, works))

        dtypes = served.DTYPES[target]
        demand(self.dtype in dtypes, "dtype", self.dtype, f"{' or '.join(dtypes)} on the {target} target")
        formats = dict.fromkeys(format for format, _, _ in served.PROBLEMS)
        kinds = {score: heads for format, score, heads in served.PROBLEMS if format == self.format}
        heads = kinds.get(self.score)
        demand(self.format in formats, "format", repr(self.format), f"one of {', '.join(formats)}")
        if heads is None:
            demand(self.format not in formats, "score", repr(self.score), f"one of {', '.join(kinds)}")
        elif self.key_dims == self.value_dims:
            alike = [key_dims for key_dims, value_dims in heads if key_dims == value_dims]
            demand(self.key_dims in alike, "head_size", self.key_dims, f"one of {', '.join(map(str, alike))}")
        else:
            pairs = ", ".join(f"{value_dims} beside {key_dims}" for key_dims, value_dims in heads)
            demand(
                (self.key_dims, self.value_dims) in heads,
                "value_dims",
                f"{self.value_dims} beside key_dims {self.key_dims}",
                f"one of {pairs}",
            )
        whole = self.num_kv_heads >= 1 and self.num_heads % self.num_kv_heads == 0
        demand(
            whole and 1 <= self.group <= served.MAX_GROUP,
            "num_heads",
            f"{self.num_heads} beside num_kv_heads {self.num_kv_heads}",
            f"1 to {served.MAX_GROUP} times num_kv_heads",
        )
        demand(0 <= self.window < 1 << 31, "window", self.window, "at least 0 and less than 2^31")
        demand(not self.core or target == "cpu", "core", self.core, f"left empty on the {target} target")
        return found
