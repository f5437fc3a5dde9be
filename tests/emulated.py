# SPDX-License-Identifier: Apache-2.0
"""An emulated AMD GPU in the place of the CPU, in a process that has used the CPU's own kernels already."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rocmforge_plugin import device, emulation
from rocmforge_plugin.ops.planner import forget_planners


def skip_unless_built(target: str) -> None:
    """Skips where the code of an AMD target was not compiled."""
    if not (device.kernels_dir() / target / "kernels.txt").exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")


@contextmanager
def emulated(target: str) -> Iterator[None]:
    """Within, all is as in a process that ROCMFORGE_EMULATE was given to from its start."""
    forget_planners()  # of the device before
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(emulation.VARIABLE, target)
            patch.setattr(device, "_open_devices", {})
            yield
    finally:
        forget_planners()
