# SPDX-License-Identifier: Apache-2.0
"""The schema of the instantiation table, and how the table in ``kernels/variants.py`` is read."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .errors import BuildError

# What a define's value may hold: C++ types and numbers, such as ``Problem<Joined<bf16, 128>, Plain>``. No compiler
# driver that starts others by way of a shell changes these.
_VALUE = re.compile(r"[\w<>,:.+* -]+", re.ASCII)


@dataclass(frozen=True)
class Unit:
    """One source file with one set of defines: one code object per GPU target, one object in the CPU library.

    Attributes:
        name: file name of the code object, without suffix.
        source: path from the repository root.
        kernels: the entry points it exports.
        defines: preprocessor defines, NAME: value.
        targets: families it is built for, of ``amd``, ``nvidia``, ``cpu``.
    """

    name: str
    source: str
    kernels: tuple[str, ...]
    defines: Mapping[str, str | int] = field(default_factory=dict)
    targets: tuple[str, ...] = ("amd", "nvidia", "cpu")


def load_units(root: Path, table: str = "kernels/variants.py") -> list[Unit]:
    """Reads the table under `root` and checks it: existing sources, each unit and each kernel named once.

    The table may import modules of `root`, which it finds before those of an installed rocmforge.
    """
    path = root / table
    spec = importlib.util.spec_from_file_location("rocmforge_variants", path)
    if spec is None or spec.loader is None:
        raise BuildError(f"{path} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    with _first_on_path(root):
        spec.loader.exec_module(module)
    units: list[Unit] = list(module.UNITS)
    _check(root, units)
    return units


@contextmanager
def _first_on_path(root: Path) -> Iterator[None]:
    before = sys.path.copy()
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path[:] = before


def _check(root: Path, units: Sequence[Unit]) -> None:
    names: set[str] = set()
    owners: dict[tuple[str, str], str] = {}
    for unit in units:
        if unit.name in names:
            raise BuildError(f"two units are named {unit.name}")
        names.add(unit.name)
        if not (root / unit.source).is_file():
            raise BuildError(f"unit {unit.name}: no such source: {unit.source}")
        if not unit.kernels:
            raise BuildError(f"unit {unit.name} exports no kernel")
        for define, value in unit.defines.items():
            if not (define.isidentifier() and _VALUE.fullmatch(str(value))):
                raise BuildError(
                    f"unit {unit.name}: the define {define}={value!r} is not a name and a C++ type or number"
                )
        for family in unit.targets:
            for kernel in unit.kernels:
                other = owners.setdefault((family, kernel), unit.name)
                if other != unit.name:
                    raise BuildError(f"kernel {kernel} is exported by both {other} and {unit.name}")
