# SPDX-License-Identifier: Apache-2.0
"""Which files a source pulls in.

Found by following ``#include "..."`` whatever conditions surround it. That can only name too many files, so a cache key
made of them is never too small, and it is known before anything is compiled. Headers in angle brackets belong to the
compiler, whose version is part of the key.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

from .errors import BuildError

_INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|(<)|(\S+))', re.MULTILINE)


class IncludeScanner:
    """Include closures under one root, each file read once."""

    def __init__(self, root: Path, search: tuple[Path, ...] = ()) -> None:
        self._root = root.resolve()
        self._search = tuple(p.resolve() for p in search)
        self._direct = cache(self._scan)
        self._digest = cache(lambda path: hashlib.sha256(path.read_bytes()).hexdigest())

    def closure(self, source: Path) -> list[Path]:
        """`source` and everything it includes, sorted."""
        seen: set[Path] = set()
        waiting = [source.resolve()]
        while waiting:
            path = waiting.pop()
            if path not in seen:
                seen.add(path)
                waiting.extend(self._direct(path))
        return sorted(seen)

    def fingerprint(self, paths: list[Path]) -> str:
        """Names (from the root) and contents of `paths`."""
        lines = (f"{path.relative_to(self._root)} {self._digest(path)}" for path in paths)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def _scan(self, path: Path) -> tuple[Path, ...]:
        found = []
        for quoted, angle, other in _INCLUDE.findall(path.read_bytes()):
            if quoted:
                found.append(self._resolve(path, quoted.decode()))
            elif not angle:
                raise BuildError(f"{path}: #include {other.decode()}: the name must be written out")
        return tuple(found)

    def _resolve(self, includer: Path, name: str) -> Path:
        for folder in (includer.parent, *self._search):
            candidate = (folder / name).resolve()
            if candidate.is_file():
                if not candidate.is_relative_to(self._root):
                    raise BuildError(f"{includer} includes {candidate}, which lies outside {self._root}")
                return candidate
        raise BuildError(f'{includer}: #include "{name}" is not found')
