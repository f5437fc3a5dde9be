# SPDX-License-Identifier: Apache-2.0
"""docs/vllm_touches.md lists what the plugin touches in vLLM: all of it, and nothing that is no longer there.

vLLM is read, not imported: some of its modules load a GPU's libraries.
"""

import ast
import importlib.util
import pathlib
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import pytest

from .test_rooms import ROOT, VLLM, imports, modules

PAGE = ROOT / "docs" / "vllm_touches.md"
pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")


class Touch(NamedTuple):
    """A name of vLLM's, the release that brought it if it is said, and the file that uses it."""

    name: str
    since: tuple[int, ...]
    file: str


def touches() -> list[Touch]:
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `vllm"):
            continue
        for name, release in re.findall(r"`(vllm[\w.]*)`(?: \((\d+\.\d+)\))?", cells[0]):
            since = tuple(map(int, release.split("."))) if release else (0, 0)
            found += [Touch(name, since, file) for file in re.findall(r"`([\w/]+\.py)`", cells[1])]
    return found


TOUCHES = touches()


@cache
def release() -> tuple[int, ...]:
    """Of the installed vLLM, whichever distribution it came in."""
    import vllm

    return tuple(map(int, vllm.__version__.split(".")[:2]))


@cache
def tree(module: str) -> ast.Module | None:
    """The source of a module of vLLM's; None if there is no such module."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.submodule_search_locations
    path = pathlib.Path(spec.submodule_search_locations[0]).joinpath(*module.split(".")[1:])
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return ast.parse(file.read_text())
    return None


def names(node: ast.AST | None) -> Iterator[str]:
    """What a module or a class defines, imports, or gives its instances."""
    for child in ast.walk(node) if node else ():
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield child.name
        elif isinstance(child, (ast.Import, ast.ImportFrom)):
            yield from (one.asname or one.name for one in child.names)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
            yield child.attr
        elif isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child.value  # of modules whose names are looked up when they are asked for


@cache
def known(module: str) -> frozenset[str]:
    return frozenset(names(tree(module)))


def classes(module: str, name: str) -> list[ast.ClassDef]:
    node = tree(module)
    return [child for child in ast.walk(node) if isinstance(child, ast.ClassDef) and child.name == name] if node else []


def bases(module: str, one: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """A class and those of its bases that are in the same module."""
    yield one
    for base in one.bases:
        for other in classes(module, getattr(base, "id", getattr(getattr(base, "value", None), "id", ""))):
            yield from bases(module, other)


def exists(name: str) -> bool:
    """Whether the installed vLLM has the module, name or attribute. An attribute is asked of the class's own module."""
    parts = name.split(".")
    length = next(length for length in range(len(parts), 0, -1) if tree(".".join(parts[:length])) is not None)
    module, rest = ".".join(parts[:length]), parts[length:]
    if not rest:
        return True
    if rest[0] not in known(module):
        return False
    return len(rest) == 1 or any(
        rest[1] in set(names(one)) for holder in classes(module, rest[0]) for one in bases(module, holder)
    )


def test_what_is_gone_would_be_found():
    assert exists("vllm.platforms.current_platform") and not exists("vllm.platforms.previous_platform")
    assert not exists("vllm.v1.attention.no_such_module.AttentionImpl")
    assert exists("vllm.v1.attention.backend.AttentionImpl.get_impl_variants")
    assert not exists("vllm.v1.attention.backend.AttentionImpl.no_such_method")


@pytest.mark.parametrize("touch", TOUCHES, ids=lambda touch: f"{touch.name}-{touch.file}")
def test_it_is_there_and_used(touch):
    assert exists(touch.name) == (release() >= touch.since)
    used = (ROOT / "rocmforge_plugin" / "vllm" / touch.file).read_text()
    last = touch.name.rpartition(".")[2]
    assert re.search(rf"\b{last}\b", used) or "rocm_aiter_per_tensor_quant" in used


def test_every_import_is_listed():
    listed = {(touch.name, touch.file) for touch in TOUCHES}
    missing = []
    for name, path in modules().items():
        if not name.startswith(VLLM):
            continue
        file = str(path.relative_to(ROOT / "rocmforge_plugin" / "vllm"))
        missing += [
            (one, file) for one in imports(name, path) if one.split(".")[0] == "vllm" and (one, file) not in listed
        ]
    assert missing == []


def test_each_row_says_how_and_until_when():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `vllm")]
    widths = {len(line.strip("|").split("|")) for line in rows}
    assert widths == {3, 5} and all(cell.strip() for line in rows for cell in line.strip("|").split("|"))
