# SPDX-License-Identifier: Apache-2.0
"""Plans of long prompts, which are done in rounds of heads, on emulated AMD GPUs.

The plan kernel gets lengths that are too long to attend to here, and what it wrote is walked in Python. Attention then
does a short prompt in rounds by a plan that is put together from that for fewer heads.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import _C
from rocmforge_plugin.ops.attention import paged_attention
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem
from tests.kernels.attention_support import Batch

from .conftest import TARGETS
from .emulation import guarded

Use = Callable[..., _C.Device]
DTYPE, HEAD_SIZE, GROUP = torch.bfloat16, 128, 4
MOST_ROUNDS, RECORD, ROUND_KEYS = 4, 8, 32768  # schedule/words.h and plan.h


@dataclass
class PrefillPlan:
    """Prefill's part of a planner's words, by schedule/words.h: views, so that they can be written."""

    header: torch.Tensor  # begins with the number of joins
    shares: torch.Tensor  # [workgroups, (tiles, head, block, at, number, row blocks, heads, shares)]
    first_blocks: torch.Tensor
    joins: torch.Tensor  # [most, (place of the first part, parts, head, first row, ...)]
    blocks: torch.Tensor  # [most, (request, first row, first tile, begin, tiles, ...)]

    @classmethod
    def of(cls, planner: AttentionPlanner, device: _C.Device, requests: int) -> PrefillPlan:
        """Behind decode's part and its scratch words."""

        def groups(kernel: str) -> int:
            return device.compute_units * device.kernel_config(f"attention_{kernel}_bf16_d128")["blocks_per_unit"]

        decode_records = (2 + MOST_ROUNDS) * groups("decode1") + requests
        words = planner._words[8 + RECORD * decode_records + -(-requests // 4) * 4 :]
        workgroups = groups("prefill")
        ends = [workgroups, 2 * workgroups, (2 + MOST_ROUNDS) * workgroups]
        records = words[8 : 8 + (words.numel() - 8) // RECORD * RECORD].view(-1, RECORD)
        return cls(words[:8], *torch.tensor_split(records, ends))


def planned(requests: list[tuple[int, int]], kv_heads: int) -> AttentionPlanner:
    """A planner that has made a plan for requests of (new tokens, all tokens)."""
    new = torch.tensor([0, *(n for n, _ in requests)], dtype=torch.int32)
    tokens, longest = int(new.sum()), int(new.max())
    problem = Problem(DTYPE, GROUP * kv_heads, kv_heads, HEAD_SIZE, HEAD_SIZE)
    planner = AttentionPlanner(problem, "cpu", len(requests), tokens)
    seq_lens = guarded(torch.tensor([n for _, n in requests], dtype=torch.int32))
    rocmforge_plugin.reset_launches()
    planner.plan(guarded(new.cumsum(0).int()), seq_lens, longest, tokens)
    assert rocmforge_plugin.launches() == {"attention_plan": 1}
    return planner


@pytest.mark.parametrize("kv_heads", [1, 2, 6, 8])
@pytest.mark.parametrize(
    "requests",
    [[(16384, 16384)], [(2048, 32768)], [(2048, 2048)] * 8, [(300, 9000), (40, 40)]],
    ids=lambda r: f"{len(r)}x{r[0][0]} on {r[0][1]}",
)
@pytest.mark.parametrize("target", TARGETS)
def test_every_tile_is_in_one_share(emulated: Use, target: str, requests: list[tuple[int, int]], kv_heads: int) -> None:
    """Of one round; and what is cut is joined."""
    device = emulated(target, compute_units=20)
    config = device.kernel_config("attention_prefill_bf16_d128")
    plan = PrefillPlan.of(planned(requests, kv_heads), device, len(requests))
    head_blocks = sum(-(-new * GROUP // config["rows"]) for new, _ in requests)
    blocks = plan.blocks[:head_blocks].tolist()
    assert {block[0] for block in blocks} == set(range(len(requests)))

    length = blocks[-1][3] + blocks[-1][4]  # of a head's line
    share_keys = length * kv_heads * config["keys"] // len(plan.shares)
    rounds = max(
        r for r in (1, 2, 4) if r == 1 or (r <= config["rounds"] and kv_heads % r == 0 and share_keys >= r * ROUND_KEYS)
    )
    assert (target in ("gfx942", "gfx950")) == (config["rounds"] == 1)

    parts = defaultdict(list)  # by head and block: the share, the first and the last tile
    for tiles, first_head, first_block, first_at, number, row_blocks, heads, shares in plan.shares.tolist():
        if tiles == 0:
            continue
        assert heads * rounds == kv_heads and row_blocks == head_blocks
        for turn in range(rounds):
            head, block, at, left = first_head + turn * heads, first_block, first_at, tiles
            while left > 0:
                begin, end = blocks[block][3], blocks[block][3] + blocks[block][4]
                count = min(left, end - at)
                if at + count > begin:
                    parts[head, block].append((number + turn * shares, max(at - begin, 0), at + count - begin))
                at, left = at + count, left - count
                if left > 0:
                    head, block = (head, block + 1) if block + 1 < head_blocks else (head + 1, 0)
                    at = at if block > 0 else 0
    assert set(parts) == {(head, block) for head in range(kv_heads) for block in range(head_blocks)}
    cut = []
    for (head, block), pieces in parts.items():
        pieces.sort()
        shares, begins, ends = zip(*pieces, strict=True)
        assert shares == tuple(range(shares[0], shares[0] + len(shares)))
        assert (begins[0], *ends) == (0, *begins[1:], blocks[block][4])
        if len(pieces) > 1:
            cut.append([2 * shares[0] + 1, len(shares), head, blocks[block][1]])  # a share has two places
    assert sorted(plan.joins[: plan.header[0], :4].tolist()) == sorted(cut)


@pytest.mark.parametrize("target", TARGETS)
def test_rounds_are_walked(emulated: Use, target: str) -> None:
    """The plan of two heads is a round of that of four."""
    device = emulated(target, "reverse", compute_units=3)
    if device.kernel_config("attention_prefill_bf16_d128")["rounds"] == 1:
        pytest.skip(f"{target} has no rounds: each of its dies has heads of its own")
    batch = Batch(DTYPE, HEAD_SIZE, 4, GROUP, [(70, 200), (40, 90)], 16, seed=6)
    for name in ("block_table", "seq_lens", "starts"):
        setattr(batch, name, guarded(getattr(batch, name)))
    planner = batch.planner()
    plan = planner.plan(batch.starts, batch.seq_lens, batch.max_query_len, batch.tokens)
    mine, two = (PrefillPlan.of(p, device, 2) for p in (planner, planned(batch.requests, 2)))
    joins, shares = int(two.header[0]), int(two.shares[0, 7])
    assert joins > 0 and two.shares[0, 6] == 2
    for to, of in ((mine.header, two.header), (mine.shares, two.shares), (mine.first_blocks, two.first_blocks)):
        to.copy_(of)
    mine.header[0] = 2 * joins
    more = torch.tensor([2 * shares, 0, 2, 0, 0, 0, 0, 0], dtype=torch.int32)
    mine.joins[: 2 * joins] = torch.cat((two.joins[:joins], two.joins[:joins] + more))
    rocmforge_plugin.reset_launches()
    paged_attention(
        batch.query.view,
        batch.cache,
        batch.block_table,
        batch.seq_lens,
        batch.starts,
        max_query_len=batch.max_query_len,
        scale=batch.scale,
        out=batch.out.view,
        plan=plan,
    )
    assert rocmforge_plugin.launches()["attention_prefill_bf16_d128"] == 1
    batch.check()
