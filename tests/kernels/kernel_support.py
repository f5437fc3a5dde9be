# SPDX-License-Identifier: Apache-2.0
"""What the kernel tests share: poisoned strided tensors, bit comparison, the error rule and launch counts."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import strategies as st

import rocmforge_plugin
from rocmforge_plugin import _C, device
from rocmforge_plugin.ops import checks

DEVICE = os.environ.get("ROCMFORGE_TEST_DEVICE", "cpu")
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
SUFFIX = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "float"}

TABLE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)

dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 2**31)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor's bit patterns, so that NaN equals itself and -0 does not equal 0."""
    return tensor.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(bits(a), bits(b))


def poison(count: int, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """NaNs with random payloads: whatever reads one shows it, whatever overwrites one changes its bits."""
    mantissa = {torch.bfloat16: 7, torch.float16: 10, torch.float32: 23}[dtype]
    quiet = {torch.bfloat16: 0x7FC0, torch.float16: 0x7E00, torch.float32: 0x7FC00000}[dtype]
    payload = torch.randint(0, 2 ** (mantissa - 1), (count,), generator=generator(seed))
    integer = torch.int32 if dtype == torch.float32 else torch.int16
    return (payload + quiet).to(integer).view(dtype).to(DEVICE)


Layout = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides, offset


class Buffer:
    """A poisoned buffer with a view into it that the test uses; the rest must stay as it is."""

    def __init__(
        self, shape: Sequence[int], strides: Sequence[int], offset: int, dtype: torch.dtype, seed: int
    ) -> None:
        size = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 0) + 1 + 16
        self.data = poison(size, dtype, seed)
        self.view = self.data.as_strided(shape, strides, offset)
        self.outside = torch.ones(size, dtype=torch.bool, device=DEVICE)
        self.outside.as_strided(shape, strides, offset).fill_(False)
        self.before = self.data.clone()

    @classmethod
    def of(cls, layout: Layout, dtype: torch.dtype, seed: int) -> Buffer:
        return cls(*layout, dtype, seed)

    def fill(self, values: torch.Tensor) -> torch.Tensor:
        """Sets the view's elements; returns a contiguous copy of them."""
        self.view.copy_(values)
        self.before = self.data.clone()
        return self.view.clone(memory_format=torch.contiguous_format)

    @property
    def view_before(self) -> torch.Tensor:
        """What the view showed at first."""
        return self.before.as_strided(self.view.shape, self.view.stride(), self.view.storage_offset())

    def outside_untouched(self) -> bool:
        return same_bits(self.data[self.outside], self.before[self.outside])

    def untouched(self) -> bool:
        return same_bits(self.data, self.before)


@st.composite
def row_layouts(draw: st.DrawFn, tokens: int, heads: int, size: int) -> Layout:
    """(shape, strides, offset) of rows [tokens, heads, size] or [tokens, heads * size] inside a wider buffer."""
    multiple = draw(st.sampled_from((1, 4, 8)))  # narrow, 8-byte and 16-byte accesses (for 16-bit types)
    pad = multiple * draw(st.integers(0, 2))
    offset = multiple * draw(st.integers(0, 3))
    behind = multiple * draw(st.integers(0, 4))
    kind = draw(st.sampled_from(("flat", "heads", "heads outside")))
    if kind == "flat":
        return (tokens, heads * size), (heads * size + behind, 1), offset
    head_stride = size + pad
    if kind == "heads":
        return (tokens, heads, size), (heads * head_stride + behind, head_stride, 1), offset
    return (tokens, heads, size), (head_stride, tokens * head_stride + behind, 1), offset


def assert_within(out: torch.Tensor, reference: torch.Tensor, naive: torch.Tensor) -> None:
    """Every element errs at most twice as much as the naive computation in the same dtype, plus 1e-5."""
    error = (out.double() - reference.double()).abs()
    bound = 2 * (naive.double() - reference.double()).abs() + 1e-5
    bad = ~(error <= bound)  # also catches NaN
    assert not bad.any(), (
        f"{int(bad.sum())} of {bad.numel()} elements; first at {bad.nonzero()[0].tolist()}: "
        f"{out[bad][0].item()} instead of {reference[bad][0].item()}"
    )


def launched(call: Callable[[], object]) -> dict[str, int]:
    """Kernel launches that `call` made."""
    rocmforge_plugin.reset_launches()
    call()
    if DEVICE != "cpu":
        torch.cuda.synchronize()
    return rocmforge_plugin.launches()


def cos_sin_table(positions: int, rotary_dim: int, dtype: torch.dtype, base: float = 10000.0) -> torch.Tensor:
    """[positions, rotary_dim], as vLLM's RotaryEmbedding builds it."""
    frequencies = base ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1).to(dtype).to(DEVICE)


class Refusal(NamedTuple):
    """A call that an op refuses: the condition that fails, what the call changes of one that runs, and what is said."""

    condition: str
    changes: dict[str, Callable[[Any], object]]
    error: type[Exception]
    says: str


def elsewhere(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that says, where it is read by its attributes, that it is on GPU 7."""
    tensor = tensor.clone()
    tensor.get_device = lambda: 7
    return tensor


def check_refusal(refusal: Refusal, call: Callable[[], object]) -> None:
    """The condition fails and no other, its error says so, and nothing is launched."""
    failed = []

    def refuse(op: str, condition: str, *rest: Any) -> None:
        failed.append(condition)
        words(op, condition, *rest)

    def unreadable(op: str, argument: str, value: object) -> None:
        failed.append(f"{argument}.tensor")
        no_tensor(op, argument, value)

    words, no_tensor = checks.refuse, checks.unreadable
    rocmforge_plugin.reset_launches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "refuse", refuse)
        patch.setattr(checks, "unreadable", unreadable)
        by_attributes = refusal.condition.endswith(".device")
        device.read_tensors_by(None if by_attributes else TABLE)
        try:
            with pytest.raises((TypeError, ValueError)) as raised:
                call()
        finally:
            device.read_tensors_by(TABLE)
    assert failed and set(failed) == {refusal.condition}, failed
    argument = refusal.condition.split(".")[0]
    assert type(raised.value) is refusal.error, raised.value
    assert re.search(rf"^\w.*: {argument} is .*; it must be ", str(raised.value)), raised.value
    assert re.search(refusal.says, str(raised.value)), raised.value
    assert rocmforge_plugin.launches() == {}


def check_words(op: str, works: checks.Works, refusals: Iterable[Refusal]) -> None:
    """Every condition of an op has words and can be made to fail; there are no words without a condition."""
    names = _C.conditions[op]
    assert len(set(names)) == len(names)
    for name in names:
        assert checks.works_of(name, works)
    assert set(works) <= set(names)
    assert {refusal.condition for refusal in refusals} == set(names)
