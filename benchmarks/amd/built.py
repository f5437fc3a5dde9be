# SPDX-License-Identifier: Apache-2.0
"""Where the built code objects for AMD GPUs are, and which kernel stands in which of them."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

from rocmforge_build import toolchain
from rocmforge_build.units import load_units

ROOT = Path(__file__).resolve().parents[2]
KERNELS_DIR = ROOT / "rocmforge_plugin" / "_kernels"
TARGETS = toolchain.AMD_TARGETS


@functools.cache
def units() -> dict[str, str]:
    """The unit of each kernel that AMD targets have, in the instantiation table's order."""
    return {kernel: unit.name for unit in load_units(ROOT) if "amd" in unit.targets for kernel in unit.kernels}


def code_object(folder: Path, target: str, kernel: str) -> Path:
    """The file that holds a kernel."""
    return folder / target / f"{units()[kernel]}.co"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table's lines."""
    return ["| " + " | ".join(map(str, line)) + " |" for line in (head, ["---"] * len(head), *rows)]


def put(document: Path, marker: str, lines: Sequence[str]) -> None:
    """Writes a document's text between ``<!-- marker -->`` and ``<!-- /marker -->``; at its end if it has none."""
    start, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    text = document.read_text() if document.exists() else ""
    before, found, rest = text.partition(f"{start}\n")
    after = rest.partition(f"{end}\n")[2] if found else ""
    if not found and before:
        before = before.rstrip("\n") + "\n\n"
    document.write_text(before + "\n".join((start, *lines, end)) + "\n" + after)
