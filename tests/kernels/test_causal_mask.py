# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rocmforge_plugin import ops, reference

from .kernel_support import DEVICE, DTYPES, SUFFIX, Buffer, dtypes, launched, poison, same_bits, seeds


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
    check(*layout, cache_len, dtype, seed)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("queries, keys, cache_len", [
    (1, 2100, 0),        # one row over several lanes' worth of slots
    (3, 5003, 17),       # pairs that take more than one block, with an odd row left over
    (513, 513, 0), (64, 4096, 4032), (64, 4097, 4032),
    (200, 50, 0),        # more queries than keys: the last rows keep everything
    (7, 9, 8), (7, 9, 9),
])
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
        assert launched(lambda shape=shape: ops.causal_mask(torch.empty(shape, device=DEVICE), 0)) == {}


def test_leading_dimensions_that_merge_do_not_count():
    scores = torch.zeros(2, 1, 2, 1, 2, 2, 1, 2, 5, 7, device=DEVICE)
    expected = reference.causal_mask(scores, 1)
    assert torch.equal(ops.causal_mask(scores, 1), expected)


REFUSALS = {
    "one dimension": (lambda: (torch.zeros(4), 0), ValueError, r"scores is \[4\].*\[\.\.\., queries, keys\]"),
    "integers": (lambda: (torch.zeros(4, 4, dtype=torch.int32), 0), TypeError, "scores is torch.int32.*bfloat16"),
    "double": (lambda: (torch.zeros(4, 4, dtype=torch.float64), 0), TypeError, "scores is torch.float64.*float32"),
    "negative cache_len": (lambda: (torch.zeros(4, 4), -1), ValueError, "cache_len is -1.*0 or more"),
    "expanded": (lambda: (torch.zeros(1, 4, 4).expand(3, 4, 4), 0), ValueError, "scores is .*expanded"),
    "seven leading dimensions": (
        lambda: (torch.zeros((4,) * 9)[(slice(0, 2),) * 7], 0), ValueError, "scores is .*at most 6 leading"),
    "meta": (lambda: (torch.zeros(4, 4, device="meta"), 0), TypeError, "meta"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name):
    arguments, error, message = REFUSALS[name]
    with pytest.raises(error, match=message):
        ops.causal_mask(*arguments())
