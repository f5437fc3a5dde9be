# SPDX-License-Identifier: Apache-2.0
"""Python's hold on the fake driver library."""

from __future__ import annotations

import ctypes
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")


class Fake:
    """The fake library's controls."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)
        self._library.fake_launch.restype = ctypes.c_char_p

    def __getattr__(self, name: str):
        return getattr(self._library, "fake_" + name)

    def fail(self, call: str, at: int, code: int) -> None:
        self._library.fake_fail(call.encode(), at, code)
