# SPDX-License-Identifier: Apache-2.0
"""The host module's stub, which type checks go by, says what is in the module."""

from __future__ import annotations

import ast
from pathlib import Path

from rocmforge_plugin import _C, device

STUB = ast.parse(Path(device.__file__).with_name("_C.pyi").read_text())


def names_of(body: list[ast.stmt]) -> set[str]:
    names = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_names() -> None:
    assert names_of(STUB.body) == {name for name in vars(_C) if not name.startswith("__")}


def test_methods() -> None:
    classes = [node for node in STUB.body if isinstance(node, ast.ClassDef)]
    assert len(classes) > 3
    for node in classes:
        found = getattr(_C, node.name)
        if not issubclass(found, Exception):
            there = {name for name in vars(found) if not name.startswith("__") and not name.startswith("_pybind")}
            assert names_of(node.body) - {"__init__"} == there
