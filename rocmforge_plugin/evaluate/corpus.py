# SPDX-License-Identifier: Apache-2.0
"""Text that ships with Python itself: library sources, reference topics, licence. Standard library only."""

from __future__ import annotations

import hashlib
import sysconfig
from functools import cache
from pathlib import Path

_SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "ensurepip"}


@cache
def documents(held_out: bool) -> tuple[str, ...]:
    """The documents of one half of the split, in a stable order.

    held_out: the eighth of the files (chosen by a hash of their name) that training never reads.
    Raises RuntimeError where Python came without its library's sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.suffix not in (".py", ".txt") or _SKIPPED.intersection(path.relative_to(root).parts):
            continue
        if (hashlib.sha256(name.encode()).digest()[0] < 32) != held_out or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        if len(text) >= 1024 and text.isascii():
            found.append(text)
    if not found:
        raise RuntimeError(f"no Python library sources under {root}; install Python with its standard library")
    return tuple(found)
