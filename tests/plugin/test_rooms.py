# SPDX-License-Identifier: Apache-2.0
"""Which module of the plugin imports which: no circles, one arrow between the rooms, vLLM only where it may be."""

import ast
import pathlib
from collections.abc import Iterator

import rocmforge_plugin

ROOT = pathlib.Path(rocmforge_plugin.__file__).resolve().parents[1]
VLLM = "rocmforge_plugin.vllm"
ROOMS = ("backend", "mla", "position", "encoder")
# Modules that drive a vLLM of their own.
DRIVERS = {
    "rocmforge_plugin.cli",
    "rocmforge_plugin.evaluate.forced",
    "rocmforge_plugin.evaluate.session",
    "rocmforge_plugin.evaluate.host",
}
# Modules of the plugin that can be read where there is no vLLM.
PLAIN = {VLLM, *(f"{VLLM}.{room}" for room in ROOMS), *(f"{VLLM}.{room}.eligibility" for room in ("backend", "mla"))}


def modules() -> dict[str, pathlib.Path]:
    """Every module of rocmforge_plugin by its dotted name."""
    found = {}
    for path in (ROOT / "rocmforge_plugin").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: pathlib.Path) -> Iterator[str]:
    """Dotted names that a module imports, those inside functions included."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{one.name}" for one in node.names)


def arrows() -> dict[str, set[str]]:
    """For each module of the vLLM plugin those of its modules that it imports."""
    known = {name: path for name, path in modules().items() if name.startswith(VLLM)}
    found = {}
    for name, path in known.items():
        asked = set(imports(name, path))
        found[name] = {
            one if one in known else one.rpartition(".")[0]
            for one in asked
            if one in known or one.rpartition(".")[0] in known
        } - {name}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of some circle, in order; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := walk(name, []))), [])


def test_a_circle_would_be_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    graph = arrows()
    assert f"{VLLM}.backend.target" in graph[f"{VLLM}.position.rotary_layers"]
    graph[f"{VLLM}.backend.target"].add(f"{VLLM}.position.rotary_layers")
    assert circle(graph)


def test_no_circles():
    assert circle(arrows()) == []


def between_rooms() -> set[tuple[str, str]]:
    """The rooms whose modules import another room's."""
    found = set()
    for name, others in arrows().items():
        for other in others:
            one, two = (part.removeprefix(f"{VLLM}.").split(".")[0] for part in (name, other))
            if {one, two} <= set(ROOMS) and one != two:
                found.add((one, two))
    return found


def test_arrows_between_rooms_lead_to_the_backend():
    assert between_rooms() == {("mla", "backend"), ("position", "backend"), ("encoder", "backend")}


def test_what_the_rooms_share_knows_none_of_them():
    """But for `register`, which vLLM's entry points lead to."""
    rooms = tuple(f"{VLLM}.{room}" for room in ROOMS)
    inside = {
        name
        for name, others in arrows().items()
        if not name.startswith(rooms) and any(other.startswith(rooms) for other in others)
    }
    assert inside == {f"{VLLM}.register"}


def test_vllm_is_imported_here_and_by_its_drivers_only():
    touching = {
        name
        for name, path in modules().items()
        if any(one == "vllm" or one.startswith("vllm.") for one in imports(name, path))
    }
    assert {name for name in touching if not name.startswith(VLLM)} == DRIVERS
    assert not touching & PLAIN
