# SPDX-License-Identifier: Apache-2.0
"""The emulated GPUs themselves: that a wrong access does not go unseen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from rocmforge_plugin import _C, device, ops

from . import emulation


def test_guarded_memory_ends_at_its_page() -> None:
    source = torch.arange(1001, dtype=torch.int16).view(7, 143)
    copy = emulation.guarded(source)
    assert torch.equal(copy, source) and copy.is_contiguous() and copy.data_ptr() % 16 == 0
    assert 0 <= -(copy.data_ptr() + 2 * 1001) % 4096 < 16


@pytest.mark.parametrize("target", ["gfx942", "gfx1100", "gfx1201"])
def test_a_wrong_access_is_an_error(emulated: Callable[..., _C.Device], target: str) -> None:
    """A position that its table has not: the launch fails and names the instruction; the next one runs."""
    emulated(target)
    query, table = (emulation.guarded(torch.ones(rows, 64)) for rows in (1, 2))

    def rotate(position: int) -> None:
        ops.rotary(emulation.guarded(torch.tensor([position])), query, None, table, head_size=64, interleaved=False)

    with pytest.raises(
        _C.DriverError, match=r"rotary_v16_float\+0x\w+: global_load\w+ .*: wave 0: lane \d+: bad address 0x"
    ):
        rotate(2)
    device.reset_launches()
    rotate(0)
    assert device.launches() == {"rotary_v16_float": 1} and query[0].tolist() == [0.0] * 32 + [2.0] * 32
