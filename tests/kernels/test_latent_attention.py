# SPDX-License-Identifier: Apache-2.0
"""Latent attention against the oracle: any lengths, pages, strides, numbers of heads and matrix cores."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rocmforge_plugin
from rocmforge_plugin import _C
from rocmforge_plugin.device import open_device
from rocmforge_plugin.ops.planner import native_problem

from .attention_support import ON_CPU, TYPES, check_results, launches_of
from .kernel_support import DEVICE, Buffer, seeds
from .latent_support import DIMS, Dims, LatentBatch, cores, untouched_memory

# Lengths around pages (16), tiles (16 to 64 keys) and row blocks.
lengths = st.one_of(st.integers(1, 40), st.sampled_from([15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257]))
# Of models and of their ranks, around tiles of 16 rows, and all others.
heads = st.one_of(st.sampled_from([1, 5, 10, 16, 20, 64, 128]), st.sampled_from([15, 17, 32, 33]), st.integers(1, 128))
MOST_ROWS = 1500  # of a batch: query tokens times heads


@st.composite
def requests(draw: st.DrawFn, most_new: int, causal: bool) -> tuple[int, int]:
    """(new tokens, all tokens): one in some has fewer keys than new tokens, or without a mask none."""
    new, keys = draw(st.integers(1, most_new)), draw(lengths)
    kind = draw(st.sampled_from(["usual"] * 6 + ["fewer", "none"]))
    if kind == "none" and not causal:
        return new, 0
    return (new, keys) if kind == "fewer" else (min(new, keys), keys)


@st.composite
def batches(draw: st.DrawFn, dtype: torch.dtype, dims: Dims, most_new: int = 70) -> LatentBatch:
    causal = draw(st.sampled_from([True, True, False]))
    number = draw(heads)
    real = requests(max(1, min(most_new, MOST_ROWS // (3 * number))), causal)
    found = draw(st.lists(real, min_size=1, max_size=4))
    if draw(st.sampled_from([False, False, True])):
        found.insert(draw(st.integers(0, len(found))), draw(st.sampled_from([(0, 0), (0, 20)])))  # padding
    multiple = 16 // dtype.itemsize
    return LatentBatch(
        dtype,
        dims,
        number,
        found,
        block_size=draw(st.sampled_from([16, 32, 48, 64, 128])),
        seed=draw(seeds),
        causal=causal,
        with_lse=draw(st.booleans()),
        padding=draw(st.sampled_from([0, 3])),
        slot_gap=multiple * draw(st.sampled_from([0, 0, 1, 4])),
        block_gap=multiple * draw(st.sampled_from([0, 0, 3])),
        heads_outside=draw(st.booleans()),
    )


def ran() -> set[str]:
    """The kernels that attended."""
    return {name for name in rocmforge_plugin.launches() if name.startswith(("attention_decode", "attention_prefill"))}


def decode_rows(batch: LatentBatch) -> int:
    """The most query tokens times heads of a request that a decode kernel takes."""
    return _C.decode_rows(open_device(DEVICE), native_problem(batch.problem()))


@pytest.mark.parametrize("dims", DIMS)
@given(data=st.data())
def test_mixed_batches(dims: Dims, data: st.DataObject) -> None:
    """Prompts, their chunks, drafts to verify and decode in one batch, on the target's own matrix core."""
    batch = data.draw(batches(data.draw(st.sampled_from(TYPES)), dims))
    planner = batch.planner(decode_query_len=data.draw(st.sampled_from([1, 2, 4])))
    rocmforge_plugin.reset_launches()
    batch.run(planner)
    assert launches_of("attention_plan") == 1 and ran()
    batch.check()


@pytest.mark.parametrize("dims", DIMS)
@given(data=st.data())
def test_decode(dims: Dims, data: st.DataObject) -> None:
    """One new token per request, or a few to verify: decode's kernel alone where they fit one, with all heads."""
    new = data.draw(st.sampled_from([1, 1, 2, 3, 8]))
    batch = data.draw(batches(data.draw(st.sampled_from(TYPES)), dims, most_new=new))
    planner = batch.planner(decode_query_len=new)
    rocmforge_plugin.reset_launches()
    batch.run(planner)
    if new * batch.heads <= decode_rows(batch):
        assert launches_of("attention_decode") == 1 and launches_of("attention_prefill") == 0
    elif batch.heads > decode_rows(batch):
        assert launches_of("attention_decode") == 0 and launches_of("attention_prefill") == 1
    batch.check()


@pytest.mark.skipif(not ON_CPU, reason="other matrix cores than the device's own exist on the CPU target only")
@pytest.mark.parametrize(("core", "dtype", "dims"), cores())
@given(data=st.data())
def test_matrix_cores(core: str, dtype: torch.dtype, dims: Dims, data: st.DataObject) -> None:
    """Every core's index arithmetic, decode and prefill."""
    batch = data.draw(batches(dtype, dims))
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner(core, data.draw(st.sampled_from([1, 4]))))
    assert ran() and all(name.endswith(f"_{batch.problem(core).suffix}") and core in name for name in ran())
    batch.check()


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("dtype", TYPES)
def test_each_number_of_heads(dtype: torch.dtype, dims: Dims) -> None:
    """1 to 128, where rows of the last tile of 16 are missing, or of the last row block."""
    for number in range(1, 129):
        batch = LatentBatch(dtype, dims, number, [(1, 17 + number % 60)], 16, seed=number)
        batch.run(batch.planner())
        batch.check()


@pytest.mark.parametrize("new", [2, 3, 5])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_token_sees_the_keys_before_it(dtype: torch.dtype, new: int) -> None:
    """Drafts that are verified: a huge key behind a token, which would be all of its result, does not show."""
    batch = LatentBatch(dtype, (576, 512), 20, [(new, 37 + new), (new, 33), (new, 64)], 16, seed=new)
    last = batch.seq_lens.long() - 1
    pages = batch.block_table[torch.arange(3, device=DEVICE), last // 16].long()
    batch.cache[pages, last % 16] *= -100
    batch.keep()
    batch.run(batch.planner(decode_query_len=new))
    batch.check()
    sizes = batch.out.view.double().abs().amax((1, 2)).view(3, new)
    assert (sizes[:, :-1] < 5).all() and (sizes[:, -1] > 50).all()


@pytest.mark.parametrize(
    ("number", "keys"), [(1, 1500), (5, 1500), (20, 1500), (33, 1500), (64, 1500), (128, 1500), (20, 12000)]
)
@pytest.mark.parametrize("dtype", TYPES)
def test_long_context_is_split_and_combined(dtype: torch.dtype, number: int, keys: int) -> None:
    """One request over every workgroup: the partial results, some or many (combine.h), must be rescaled and joined."""
    batch = LatentBatch(dtype, (576, 512), number, [(1, keys)], 16, seed=number)
    # Later keys score far higher, so that parts differ in their maxima by hundreds; values stay as they are.
    batch.cache[..., 512:] *= 1 + batch.block_table.new_tensor(range(len(batch.cache)))[:, None, None] % 7
    batch.keep()
    batch.scale *= 4
    rocmforge_plugin.reset_launches()
    batch.run(batch.planner())
    assert launches_of("attention_combine") == 1
    batch.check()


def part_of(whole: LatentBatch, begins: list[int], ends: list[int], causal: bool) -> LatentBatch:
    """The same queries over some of each request's pages."""
    spans = zip(whole.requests, begins, ends, strict=True)
    part = LatentBatch(
        whole.dtype,
        whole.dims,
        whole.heads,
        [(new, end - begin) for (new, _), begin, end in spans],
        whole.block_size,
        whole.seed,
        causal,
    )
    part.query, part.rope, part.cache_buffer = whole.query, whole.rope, whole.cache_buffer
    for request, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        pages = whole.block_table[request, begin // whole.block_size : -(-end // whole.block_size)]
        part.block_table[request, : len(pages)] = pages
    return part


@pytest.mark.parametrize("dims", DIMS)
@pytest.mark.parametrize("dtype", TYPES)
def test_chunks_of_the_context_are_joined_by_their_sums(dtype: torch.dtype, dims: Dims) -> None:
    """Two chunks of each request's context without a mask, and the rest with: together attention over all keys.

    Some chunks are empty, of which the results are zero and the logarithms -inf.
    """
    whole = LatentBatch(dtype, dims, 20, [(1, 150), (7, 7), (40, 100), (3, 64), (2, 90)], 16, seed=3)
    cuts = [[0] * 5, [64, 0, 16, 0, 16], [128, 0, 48, 48, 16], [150, 7, 100, 64, 90]]
    outs, sums = [], []
    for begins, ends in pairwise(cuts):
        part = part_of(whole, begins, ends, causal=ends is cuts[-1])
        part.run(part.planner(decode_query_len=2))
        part.check()
        assert part.lse is not None
        outs.append(part.out.view.double())
        sums.append(part.lse.view.double())
    assert sums[0][:, 1:8].isneginf().all() and (outs[0][1:8] == 0).all()
    weights = torch.softmax(torch.stack(sums), 0).transpose(1, 2)[..., None]  # [chunk, tokens, heads, 1]
    joined = Buffer(whole.out.view.shape, whole.out.view.stride(), 24, dtype, 1)
    joined.view.copy_((weights * torch.stack(outs)).sum(0))
    check_results(joined, whole.reference(torch.float64)[0], whole.reference(dtype)[0])
    together = torch.logsumexp(torch.stack(sums), 0).cpu()
    torch.testing.assert_close(together, whole.reference(torch.float64)[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("new", [1, 40])
@pytest.mark.parametrize("dims", DIMS)
def test_far_apart(dims: Dims, new: int) -> None:
    """Pages, tokens and heads 2^32 elements apart: what does not fit 32 bits is not lost.

    What were lost would still be in the room, so that it shows in the results.
    """
    batch = LatentBatch(TYPES[0], dims, 2, [(new, 60), (new, 90)], 16, seed=new, with_lse=False)
    half = 1 << 31
    room = untouched_memory(3 * half + (1 << 20), batch.dtype)

    def apart(tensor: torch.Tensor, dim: int, offset: int) -> torch.Tensor:
        """A copy whose first and last index of one dimension are 2^32 elements apart."""
        strides = list(tensor.stride())
        strides[dim] = 2 * half // (tensor.shape[dim] - 1) // 64 * 64
        return room.as_strided(tensor.shape, strides, half + offset).copy_(tensor)

    batch.cache_buffer.view = apart(batch.cache, 0, 0)
    batch.query.view = apart(batch.query.view, 0, 1 << 16)
    if batch.rope is not None:
        batch.rope.view = apart(batch.rope.view, 1, 3 << 16)
    near = batch.out.view
    batch.out.view = far = apart(near, 0, 5 << 16)
    batch.run(batch.planner())
    batch.out.view = near.copy_(far)
    batch.check()
