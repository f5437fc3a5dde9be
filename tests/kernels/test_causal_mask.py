# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference
from rocmforge_plugin.ops.mask import WORKS

from .kernel_support import (
    DEVICE,
    DTYPES,
    SUFFIX,
    Buffer,
    Refusal,
    check_refusal,
    check_words,
    dtypes,
    launched,
    poison,
    same_bits,
    seeds,
)


@st.composite
def layouts(draw):
    """Shape, strides and offset of scores [..., queries, keys]."""
    leading = draw(st.lists(st.integers(1, 3), max_size=3))
    queries, keys = draw(st.integers(1, 40)), draw(st.integers(1, 90))
    shape = (*leading, queries, keys)
    order = draw(st.permutations(range(len(shape)))) if draw(st.booleans()) else range(len(shape))
    strides, step = [0] * len(shape), draw(st.sampled_from((1, 1, 2)))
    for dim in reversed(order):
        strides[dim] = step
        step = step * shape[dim] + draw(st.sampled_from((0, 0, 1, 5)))
    return shape, strides, draw(st.integers(0, 9))


def check(shape, strides, offset, cache_len, dtype, seed):
    buffer = Buffer(shape, strides, offset, dtype, seed)
    # The scores are poison too: kept elements must keep their bits whatever they are.
    expected = buffer.data.clone()
    view = expected.as_strided(shape, strides, offset)
    view.copy_(reference.causal_mask(view, cache_len))
    assert ops.causal_mask(buffer.view, cache_len) is buffer.view
    assert same_bits(buffer.data, expected)


@given(layouts(), st.integers(0, 95), dtypes, seeds)
def test_masks_exactly_the_future(layout, cache_len, dtype, seed):
    shape, strides, offset = layout
    check(shape, strides, offset, cache_len, dtype, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("queries", "keys", "cache_len"),
    [
        (1, 2100, 0),  # one row over several lanes' worth of slots
        (3, 5003, 17),  # pairs that take more than one block, with an odd row left over
        (513, 513, 0),
        (64, 4096, 4032),
        (64, 4097, 4032),
        (200, 50, 0),  # more queries than keys: the last rows keep everything
        (7, 9, 8),
        (7, 9, 9),
    ],
)
def test_sizes_around_the_grid(queries, keys, cache_len, dtype):
    check((2, queries, keys), (queries * keys, keys, 1), 3, cache_len, dtype, 1)
    if keys < 3000:
        check((queries, keys), (1, queries + 1), 0, cache_len, dtype, 2)  # keys outermost: strided columns


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_launch_of_the_widest_kernel(dtype):
    scores = torch.zeros(2, 4, 8, 16, dtype=dtype, device=DEVICE)
    assert launched(lambda: ops.causal_mask(scores, 3)) == {f"causal_mask_v16_{SUFFIX[dtype]}": 1}
    columns = torch.zeros(8, 16, 2, dtype=dtype, device=DEVICE)[..., 0]
    assert launched(lambda: ops.causal_mask(columns, 3)) == {f"causal_mask_v1_{SUFFIX[dtype]}": 1}


def test_nothing_to_mask_launches_nothing():
    decode = poison(64, torch.bfloat16, 5).view(1, 64)
    before = decode.clone()
    assert launched(lambda: ops.causal_mask(decode, 63)) == {}
    assert launched(lambda: ops.causal_mask(decode, 10**9)) == {}
    assert same_bits(decode, before)
    for shape in ((0, 5), (5, 0), (0, 3, 3), (2, 0, 4)):
        assert launched(partial(ops.causal_mask, torch.empty(shape, device=DEVICE))) == {}


def test_leading_dimensions_that_merge_do_not_count():
    scores = torch.zeros(2, 1, 2, 1, 2, 2, 1, 2, 5, 7, device=DEVICE)
    expected = reference.causal_mask(scores, 1)
    assert torch.equal(ops.causal_mask(scores, 1), expected)


REFUSALS = [
    Refusal("scores.tensor", {"scores": lambda t: None}, TypeError, "scores is a NoneType"),
    Refusal("scores.tensor", {"scores": lambda t: t.to("meta")}, ValueError, "scores is on meta"),
    Refusal("scores.tensor", {"scores": lambda t: t.to_sparse()}, ValueError, "scores is of layout torch.sparse_coo"),
    Refusal("scores.tensor", {"scores": lambda t: torch.complex(t, t).conj().imag}, ValueError, "resolve_neg"),
    Refusal("scores.dtype", {"scores": lambda t: t.int()}, TypeError, "scores is torch.int32.*bfloat16"),
    Refusal("scores.dtype", {"scores": lambda t: t.double()}, TypeError, "scores is torch.float64.*float32"),
    Refusal("scores.shape", {"scores": lambda t: t[0]}, ValueError, r"scores is \[4\].*\[\.\.\., queries, keys\]"),
    Refusal("cache_len.least", {"cache_len": lambda n: -1}, ValueError, "cache_len is -1.*0 or more"),
    Refusal("scores.own", {"scores": lambda t: t.expand(3, 4, 4)}, ValueError, "not an expanded one"),
    Refusal("scores.size", {"scores": lambda t: t[:2, :1].expand(2, 1 << 31)}, ValueError, r"fewer than 2\^31"),
    Refusal("scores.size", {"scores": lambda t: t[:1, :2].expand(1 << 31, 2)}, ValueError, r"fewer than 2\^31"),
    Refusal(
        "scores.batch_dims",
        {"scores": lambda t: torch.zeros((4,) * 9, device=DEVICE)[(slice(0, 2),) * 7]},
        ValueError,
        "at most 6 leading",
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.condition)
def test_refuses(refusal):
    arguments = {"scores": torch.zeros(4, 4, device=DEVICE), "cache_len": 0}
    arguments |= {name: change(arguments[name]) for name, change in refusal.changes.items()}
    check_refusal(refusal, lambda: ops.causal_mask(**arguments))


def test_every_condition_has_words():
    check_words("causal_mask", WORKS, REFUSALS)
