# SPDX-License-Identifier: Apache-2.0
"""The emulated GPUs themselves: what they say when they are missing, and that a wrong access does not go unseen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rocmforge_plugin import _C, device, ops

from . import emulation


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TINYGRAD_PATH", "AMDGPU_TOOLS"):
        monkeypatch.delenv(name, raising=False)
    assert emulation.missing() == (
        "no emulated AMD GPU: TINYGRAD_PATH is not set; it must name a source checkout of github.com/tinygrad/tinygrad"
    )
    monkeypatch.setenv("TINYGRAD_PATH", str(tmp_path))
    assert f"TINYGRAD_PATH={tmp_path} has no test/mockgpu/amd/emu.py" in (emulation.missing() or "")
    (tmp_path / "test/mockgpu/amd").mkdir(parents=True)
    (tmp_path / "test/mockgpu/amd/emu.py").touch()
    assert "AMDGPU_TOOLS is not set; it must name the folder" in (emulation.missing() or "")
    monkeypatch.setenv("AMDGPU_TOOLS", str(tmp_path))
    (tmp_path / "amdrun.py").touch()
    assert emulation.missing() is None


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

    with pytest.raises(_C.DriverError, match=r"bad address .*rotary_v16_float\+0x\w+: global_load"):
        rotate(2)
    device.reset_launches()
    rotate(0)
    assert device.launches() == {"rotary_v16_float": 1} and query[0].tolist() == [0.0] * 32 + [2.0] * 32


@pytest.mark.parametrize(
    ("four_bytes", "eight_bytes"),
    [
        ("8915087f", "84004ad189010000"),  # v_cvt_f16_f32 v132, v137
        ("82040355", "81002ad182040300"),  # v_lshlrev_b16 v129, 2, v130
        ("0303597d", "6a00acd003030300"),
    ],
)  # v_cmp_gt_u16 vcc, v3, v129
def test_eight_byte_forms(four_bytes: str, eight_bytes: str) -> None:
    """The VOP3 encoding of a shorter instruction, as llvm-mc encodes its _e32 and _e64."""
    assert emulation._as_vop3(bytes.fromhex(four_bytes)) == bytes.fromhex(eight_bytes)
