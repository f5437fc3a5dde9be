# SPDX-License-Identifier: Apache-2.0
"""Every vector ALU handler, on each target that has an instruction for it, against exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amdgpu import gpu
from amdgpu.library import library
from tests.amdgpu.conftest import ARITHMETIC

from . import expected_float, expected_integer, expected_transcendental, instructions
from .expected_scalar import SCALARS
from .instructions import TARGETS

EXPECTED = {
    **expected_float.FLOATS, **expected_float.COMPARES, **expected_float.CONVERSIONS,
    **expected_integer.INTEGERS, **expected_integer.PACKED, **expected_integer.DOTS,
    **expected_transcendental.expected(expected_transcendental.nearest), **expected_transcendental.doubles(2),
    **expected_transcendental.DIVISION,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def settings() -> Iterator[None]:
    """Expectations are of the nearest results and of sums in ascending order."""
    gpu.arithmetic("nearest", "ascending")
    yield
    gpu.arithmetic(*ARITHMETIC)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_instruction(name: str) -> None:
    """On every target that has it; at least one does."""
    targets = [target for target in TARGETS if name in instructions.forms(target)]
    assert targets, f"{name} is an instruction of none of {TARGETS}"
    for target in targets:
        instructions.check(name, target, EXPECTED[name])


def test_every_handler_has_an_expectation() -> None:
    """What is not in the tables above has a test of its own, and nothing in them is without a handler."""
    handlers = {name for name in library().handlers if instructions.is_alu(name)}
    expected = {*EXPECTED, *SCALARS, *instructions.SPECIAL}
    assert handlers - expected == set()
    assert expected - handlers == set()
