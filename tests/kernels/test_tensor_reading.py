# SPDX-License-Identifier: Apache-2.0
"""How the host module reads the tensors of an attention call: by torch's DLPack table, and by attributes without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch._subclasses import FakeTensorMode

import rocmforge_plugin
from rocmforge_plugin import device
from rocmforge_plugin.ops.attention import paged_attention

from .kernel_support import DEVICE
from .test_attention import Batch, launched

TABLE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)


@pytest.fixture(params=["table", "attributes"])
def reader(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "table" and TABLE is None:
        pytest.skip("this torch has no DLPack exchange table")
    assert device.read_tensors_by(TABLE if request.param == "table" else None) is (request.param == "table")
    yield
    device.read_tensors_by(TABLE)


def test_this_torch_has_the_table() -> None:
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 11):
        pytest.skip("before torch 2.11")
    assert device.read_tensors_by(TABLE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_results(reader: None, dtype: torch.dtype) -> None:
    """Strided views with an offset, a cache with pages token by token, sinks."""
    batch = Batch(dtype, 96, 2, 4, [(1, 70), (9, 20), (1, 16)], 32, seed=1, sinks=True, token_major=True)
    planner = batch.planner()
    rocmforge_plugin.reset_launches()
    batch.run(planner)
    assert launched("attention_decode") == launched("attention_prefill") == 1
    batch.check()


FAKE = FakeTensorMode()
NOT_READ: list[tuple[str, Callable[[torch.Tensor], object], type[Exception], str]] = [
    ("query", lambda x: [1.0], TypeError, "query is a list"),
    ("kv_cache", lambda x: None, TypeError, "kv_cache is a NoneType"),
    ("query", lambda x: x.to(torch.complex64), TypeError, "query is torch.complex64"),
    ("query", lambda x: x[None, None], ValueError, "query is "),
    ("kv_cache", lambda x: x.to("meta"), ValueError, "kv_cache is on meta"),
    ("kv_cache", FAKE.from_tensor, TypeError, "kv_cache is a FakeTensor"),
    ("query", lambda x: x.as_subclass(type("Marked", (torch.Tensor,), {})), TypeError, "query is a Marked"),
    ("block_table", lambda x: x.long(), TypeError, "block_table is torch.int64"),
    ("seq_lens", lambda x: x.tolist(), TypeError, "seq_lens is a list"),
    ("out", lambda x: x.float().to_sparse(), TypeError, "out is torch.float32"),
    ("sinks", lambda x: 1.0, TypeError, "sinks is a float"),
]


@pytest.mark.parametrize(("argument", "change", "error", "says"), NOT_READ, ids=[row[3] for row in NOT_READ])
def test_what_cannot_be_read(reader: None, argument: str, change: Callable[[torch.Tensor], object],
                             error: type[Exception], says: str) -> None:
    """Nothing is launched, no error of the reading itself is left behind, and the message says what it was."""
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1)
    values = {"query": batch.query.view, "kv_cache": batch.cache, "block_table": batch.block_table,
              "seq_lens": batch.seq_lens, "out": batch.out.view, "sinks": None}
    plan = batch.planner().plan(batch.starts, batch.seq_lens, 1, batch.tokens)
    values[argument] = change(values[argument])
    rocmforge_plugin.reset_launches()
    with pytest.raises(error, match=says):
        paged_attention(values["query"], values["kv_cache"], values["block_table"], values["seq_lens"], batch.starts,
                        max_query_len=1, scale=batch.scale, out=values["out"], sinks=values["sinks"], plan=plan)
    assert rocmforge_plugin.launches() == {}


PLANS: list[tuple[str, Callable[[torch.Tensor], object], type[Exception], str]] = [
    ("query_start_loc", lambda x: x.tolist(), TypeError, "query_start_loc is a list"),
    ("query_start_loc", lambda x: x.long(), TypeError, "query_start_loc is torch.int64"),
    ("query_start_loc", lambda x: x[:2], ValueError, r"query_start_loc is \[2\] .* of size \[3\]"),
    ("query_start_loc", lambda x: x.to("meta"), ValueError, "query_start_loc is on meta"),
    ("query_start_loc", lambda x: x.repeat(2)[::2], ValueError, "query_start_loc .* contiguous"),
    ("seq_lens", lambda x: None, TypeError, "seq_lens is a NoneType"),
    ("seq_lens", lambda x: x.float(), TypeError, "seq_lens is torch.float32"),
    ("seq_lens", lambda x: x[:, None], ValueError, r"seq_lens is \[2, 1\]"),
    ("num_tokens", lambda x: 3, ValueError, "num_tokens is 3; it must be at most max_num_tokens, 2"),
    ("num_tokens", lambda x: -1, ValueError, "num_tokens is -1"),
]


@pytest.mark.parametrize(("argument", "change", "error", "says"), PLANS, ids=[f"{row[0]}-{i}" for i, row in
                                                                              enumerate(PLANS)])
def test_what_cannot_be_planned(reader: None, argument: str, change: Callable[[torch.Tensor], object],
                                error: type[Exception], says: str) -> None:
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1)
    planner = batch.planner()
    values = {"query_start_loc": batch.starts, "seq_lens": batch.seq_lens, "max_query_len": 1, "num_tokens": 2}
    values[argument] = change(values[argument])
    rocmforge_plugin.reset_launches()
    with pytest.raises(error, match=says):
        planner.plan(**values)
    with pytest.raises(ValueError, match="seq_lens is of 3 requests; it must be of 1 to max_num_reqs, 2"):
        planner.plan(torch.arange(4, dtype=torch.int32, device=DEVICE), batch.seq_lens.repeat(2)[:3], 1, 2)
    assert rocmforge_plugin.launches() == {}


def test_tensors_of_another_device(reader: None) -> None:
    """Neither planned nor read, by a planner whose buffers are elsewhere."""
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1)
    planner = batch.planner()
    plan = planner.plan(batch.starts, batch.seq_lens, 1, 2)
    planner._native.use_buffers(planner._words.data_ptr(), planner._workspace.data_ptr(), planner._index + 1)
    rocmforge_plugin.reset_launches()
    assert not planner.run(plan, batch.query.view, batch.cache, batch.block_table, batch.seq_lens, batch.out.view, 1,
                           batch.scale, 0, None)
    assert not planner._plan(device.stream_of(planner._index), batch.starts, batch.seq_lens, 2, 1)
    assert rocmforge_plugin.launches() == {}
