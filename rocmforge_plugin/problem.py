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


def kernel_suffix(
    element: str, format: str, score: str, key_dims: int, value_dims: int, listed: bool = False, core: str = ""
) -> str:
    """How the names of a problem's kernels end, such as ``bf16_d128``: what is usual is not named."""
    dims = f"d{key_dims}" if key_dims == value_dims else f"d{key_dims}v{value_dims}"
    kind = ("" if format == "joined" else format, "" if score == "plain" else score, "listed" if listed else "")
    return "_".join(part for part in (element, dims, *kind, core) if part)


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
        window: keys a query sees on either side that it sees, its own included; 0 for all.
        format: how keys and values lie in memory; "joined": in pages, a key and its value in one row; "latent": in
            pages, keys whose first elements are the value; "split": in two tensors without pages.
        score: what becomes of a product of query and key before the softmax; "plain": it is scaled; "capped": and has
            a soft cap; "biased", "rooted": and gets ALiBi's bias, or that of the distance's root.
        mask: which keys a query sees; "windowed": all, or those in a window; "ranges": those, and all keys of a range
            of its request that it lies in; "clamped_ranges": of such a range none before the window.
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
    mask: str = "windowed"
    core: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", str(self.dtype).removeprefix("torch."))

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.num_heads // self.num_kv_heads

    @property
    def listed(self) -> bool:
        """Whether the plan lists what each token sees."""
        return served.MASKS.get(self.mask, False)

    def _heads(self, format: str) -> tuple[tuple[int, int], ...]:
        """The heads that a format has kernels for, with this score and mask."""
        table = served.LISTED_PROBLEMS if self.listed else served.PROBLEMS
        return next((heads for found, score, heads in table if (found, score) == (format, self.score)), ())

    @property
    def kernels(self) -> tuple[str, int, int]:
        """Format, key dims and value dims of the kernels: those of longer heads where these have none of their own."""
        own = (self.key_dims, self.value_dims)
        if own in self._heads(self.format) or not self._is_narrow():
            return (self.format, *own)
        longer = [size for size, _ in self._heads(served.NARROW[self.format]) if size >= self.key_dims]
        return (served.NARROW[self.format], longer[0], longer[0]) if longer else (self.format, *own)

    def _is_narrow(self) -> bool:
        """Whether heads of these dims may run in kernels for longer ones."""
        size = self.key_dims
        whole = size % served.NARROW_STEP == 0 and size >= served.LEAST_HEAD
        return self.format in served.NARROW and size == self.value_dims and whole

    @property
    def suffix(self) -> str:
        """How the names of this problem's kernels end, such as ``bf16_d128``."""
        format, key_dims, value_dims = self.kernels
        element = served.ELEMENTS[self.dtype]
        return kernel_suffix(element, format, self.score, key_dims, value_dims, self.listed, self.core)

    @property
    def combine_suffix(self) -> str:
        """The same of the kernel that joins partial results."""
        return combine_suffix(served.ELEMENTS[self.dtype], self.kernels[2])

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
        table = served.LISTED_PROBLEMS if self.listed else served.PROBLEMS
        usual = {narrow: format for format, narrow in served.NARROW.items()}  # nobody asks for a narrow format
        formats = dict.fromkeys(usual.get(format, format) for format, _, _ in served.PROBLEMS)
        scores = dict.fromkeys(score for found, score, _ in table if usual.get(found, found) == self.format)
        demand(self.mask in served.MASKS, "mask", repr(self.mask), f"one of {', '.join(served.MASKS)}")
        demand(self.format in formats, "format", repr(self.format), f"one of {', '.join(formats)}")
        if self.format in formats and not scores:
            demand(False, "mask", repr(self.mask), f"'windowed' for the {self.format} format")
        elif self.score not in scores:
            demand(self.format not in formats, "score", repr(self.score), f"one of {', '.join(scores)}")
        elif self.kernels[1:] not in self._heads(self.kernels[0]):
            found.append(self._heads_refusal())
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

    def _heads_refusal(self) -> Refusal:
        own = self._heads(self.format)
        most = max((size for size, _ in self._heads(served.NARROW.get(self.format, ""))), default=0)
        if self.key_dims == self.value_dims:
            alike = [key_dims for key_dims, value_dims in own if key_dims == value_dims and key_dims > most]
            step = f"a multiple of {served.NARROW_STEP} from {served.LEAST_HEAD} to {most}" if most else ""
            one = f"one of {', '.join(map(str, alike))}" if len(alike) > 1 else "".join(map(str, alike))
            return Refusal("head_size", self.key_dims, ", or ".join(part for part in (step, one) if part))
        pairs = ", ".join(f"{value_dims} beside {key_dims}" for key_dims, value_dims in own)
        came = f"{self.value_dims} beside key_dims {self.key_dims}"
        return Refusal("value_dims", came, f"one of {pairs}" if pairs else f"as many, {self.key_dims}")
