# SPDX-License-Identifier: Apache-2.0
"""Where results of compilers are kept, by what they were made of: one folder for all of a user's source trees.

A result is renamed into place when it is whole, and equal names mean equal contents, so any number of builds may use
the folder at the same time. Beside each result lies what it cost, NAME.json.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import BuildError

_UNUSED_AFTER_DAYS = 30
_MOST_BYTES = 2 << 30  # some 60 builds of all targets
_TEMPORARY = "tmp-"
_USERS, _CLAIMS = "users.lock", "claims.lock"


@dataclass(frozen=True)
class Cost:
    """What a result took: seconds of one core, of the compiler and all that it started, and bytes."""

    seconds: float
    size: int


def folder_for(root: Path, say: Callable[[str], None]) -> Path:
    """ROCMFORGE_CACHE, else ``rocmforge`` in the user's cache folder, else ``build/cache`` of the source tree `root`.

    Raises:
        BuildError: ROCMFORGE_CACHE names a folder that cannot be written.
    """
    named = os.environ.get("ROCMFORGE_CACHE")
    if named:
        folder = Path(named).absolute()
        try:
            _try_to_write(folder)
        except OSError as error:
            raise BuildError(f"ROCMFORGE_CACHE={named} cannot be written: {error}") from None
        return folder
    try:
        folder = _users_folder()
        _try_to_write(folder)
    except (OSError, RuntimeError) as error:
        folder = root / "build" / "cache"
        say(f"the user's cache folder cannot be written ({error}): results are kept in {folder}, for this tree only")
        _try_to_write(folder)
    return folder


def _users_folder() -> Path:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # a relative path in it does not count, its specification says
    return (given if given.is_absolute() else Path.home() / ".cache") / "rocmforge"


def _try_to_write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder), open(folder / _USERS, "a"), open(folder / _CLAIMS, "a"):
        return


class Cache:
    """Results by name. Used as a context: nothing is dropped while any build is inside."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Cache:
        self._users = open(self.folder / _USERS, "a")
        self._claims = open(self.folder / _CLAIMS, "a")
        fcntl.flock(self._users, fcntl.LOCK_SH)
        return self

    def __exit__(self, *_: object) -> None:
        self._users.close()
        self._claims.close()

    def path(self, name: str) -> Path:
        """Where the result `name` lies, or would."""
        return self.folder / name

    def find(self, name: str) -> Cost | None:
        """What the result `name` cost, if it is there, and marks it as used."""
        record = self._record(name)
        try:
            cost = Cost(**json.loads(record.read_text()))
            if self.path(name).stat().st_size != cost.size:
                return None  # a machine that lost power may leave a file without its contents
            for path in (self.path(name), record):
                os.utime(path)
        except (FileNotFoundError, PermissionError, ValueError, TypeError):
            return None  # absent, or another user's (as after `sudo pip`), or no record: made again, and replaced
        return cost

    def temporary(self, suffix: str) -> Path:
        """An empty file in the folder, for a result until it is whole."""
        handle, name = tempfile.mkstemp(suffix, _TEMPORARY, self.folder)
        os.close(handle)
        return Path(name)

    def keep(self, name: str, file: Path, seconds: float) -> Cost:
        """Puts the finished `file` in place as the result `name`."""
        cost = Cost(round(seconds, 3), file.stat().st_size)
        beside = self.temporary(".json")
        beside.write_text(json.dumps(asdict(cost)) + "\n")
        for source, target in ((beside, self._record(name)), (file, self.path(name))):
            source.chmod(0o644)
            os.replace(source, target)
        return cost

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Whether this process is the one to make `name`: False while another does. Ends with the process, too."""
        place = int(name[:15], 16)  # each name has a byte in a file that stays empty
        try:
            fcntl.lockf(self._claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(self._claims, fcntl.LOCK_UN, 1, place)

    def drop_unused(self) -> None:
        """Removes what no build has asked for in a month, and of the rest the longest unused if all is too large.

        Nothing happens while a build is inside; the last one out does it.
        """
        with open(self.folder / _USERS, "a") as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            found = [(path.stat(), path) for path in self.folder.iterdir() if path.suffix != ".lock"]
            oldest = time.time() - _UNUSED_AFTER_DAYS * 86400
            total = 0
            for stat, path in sorted(found, key=lambda entry: entry[0].st_mtime, reverse=True):
                total += stat.st_size
                if stat.st_mtime < oldest or total > _MOST_BYTES or path.name.startswith(_TEMPORARY):
                    path.unlink()

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"
