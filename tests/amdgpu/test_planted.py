# SPDX-License-Identifier: Apache-2.0
"""Waits, barriers and only writes that are left out of real kernels are noticed, or shown to change nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from rocmforge_plugin import _C

from . import planted


@pytest.mark.parametrize(("target", "name"), planted.KERNELS)
def test_nothing_goes_wrong_unnoticed(emulated: Callable[..., _C.Device], target: str, name: str) -> None:
    emulated(target, compute_units=1)
    planted.run(name)
    found = planted.outcomes(target, name)
    assert not [o for o in found if o.outcome == "wrong"]
    reported = Counter(o.what for o in found if o.outcome == "reported")
    places = Counter(o.what for o in found)
    assert set(places) == set(planted.WHAT)  # the kernel has all of them
    assert all(reported[what] > 0 for what in places), reported
