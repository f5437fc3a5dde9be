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

from .attention_support import Batch, launches_of
from .kernel_support import TABLE


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
    assert launches_of("attention_decode") == launches_of("attention_prefill") == 1
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
    ("out", lambda x: x.float().to_sparse(), ValueError, "out is of layout torch.sparse_coo"),
    ("sinks", lambda x: 1.0, TypeError, "sinks is a float"),
]


@pytest.mark.parametrize(("argument", "change", "error", "says"), NOT_READ, ids=[row[3] for row in NOT_READ])
def test_what_cannot_be_read(
    reader: None, argument: str, change: Callable[[torch.Tensor], object], error: type[Exception], says: str
) -> None:
    """Nothing is launched, no error of the reading itself is left behind, and the message says what it was."""
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1)
    values = {
        "query": batch.query.view,
        "kv_cache": batch.cache,
        "block_table": batch.block_table,
        "seq_lens": batch.seq_lens,
        "out": batch.out.view,
        "sinks": None,
    }
    plan = batch.planner().plan(batch.starts, batch.seq_lens, 1, batch.tokens)
    values[argument] = change(values[argument])
    rocmforge_plugin.reset_launches()
    with pytest.raises(error, match=says):
        paged_attention(
            values["query"],
            values["kv_cache"],
            values["block_table"],
            values["seq_lens"],
            batch.starts,
            max_query_len=1,
            scale=batch.scale,
            out=values["out"],
            sinks=values["sinks"],
            plan=plan,
        )
    assert rocmforge_plugin.launches() == {}


def test_tensors_of_another_device(reader: None) -> None:
    """Neither planned nor read, by a planner whose buffers are elsewhere."""
    batch = Batch(torch.bfloat16, 64, 2, 4, [(1, 70), (1, 20)], 16, seed=1)
    planner = batch.planner()
    plan = planner.plan(batch.starts, batch.seq_lens, 1, 2)
    buffers = planner._words.data_ptr(), planner._workspace.data_ptr(), planner._index + 1, planner._spans.data_ptr()
    planner.native.use_buffers(*buffers)
    rocmforge_plugin.reset_launches()
    assert (
        planner.native.run_paged(
            planner.stream(),
            plan.num_reqs,
            plan.num_tokens,
            plan.max_query_len,
            plan.causal,
            batch.query.view,
            batch.cache,
            batch.block_table,
            batch.seq_lens,
            batch.out.view,
            None,
            None,
            None,
            1,
            batch.scale,
            0,
            0.0,
            True,
        )
        == "query.device"
    )
    assert planner.native.plan(planner.stream(), batch.starts, batch.seq_lens, 2, 1, True, None) == "seq_lens.device"
    assert rocmforge_plugin.launches() == {}
