# SPDX-License-Identifier: Apache-2.0
"""What there is to compile: a compiler for each target, and a job for each object."""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import toolchain
from .cache import Cache
from .costs import LINK
from .errors import BuildError
from .includes import IncludeScanner
from .jobs import Job
from .toolchain import Compiler
from .units import Unit, load_units

_HOST_RUNTIME = ("kernels/target/host_block.cpp",)  # sources of the CPU library besides the units
_SUFFIXES = {"cpu": ".o", "amd": ".co", "nvidia": ".cubin"}


@dataclass
class Plan:
    """Compilers chosen for the targets, and why the other targets are left out."""

    cxx: Compiler
    targets: dict[str, Compiler] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def left_out_by_reason(self) -> dict[str, list[str]]:
        """Targets that are left out, those with the same reason together."""
        reasons: dict[str, list[str]] = {}
        for target, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(target)
        return reasons


@dataclass
class Work:
    """The jobs of one build.

    Attributes:
        interface: digest of the headers that host code and kernels share.
        units: (unit, its job) of each target.
        objects: all compiler calls; they depend on nothing.
        library: links the CPU target's objects, if that is built.
        module: links the host module, if that is built.
    """

    interface: str
    units: dict[str, list[tuple[Unit, Job]]]
    objects: list[Job]
    library: Job | None = None
    module: Job | None = None

    @property
    def links(self) -> list[Job]:
        """What waits for `objects`."""
        return [job for job in (self.library, self.module) if job]


def plan_work(
    root: Path, cache: Cache, targets: Sequence[str] | None, extension: bool, say: Callable[[str], None]
) -> Work:
    """All that a build of `root` compiles; says which targets are left out, and why.

    Raises:
        BuildError: as :func:`build`, but for what only compiling shows.
    """
    plan = make_plan(requested(targets))
    for reason, names in plan.left_out_by_reason().items():
        say(f"left out: {', '.join(names)}: {reason}")
    scanner = IncludeScanner(root, (root / "csrc", root))
    work = Work(interface_digest(root, scanner), {}, [])
    table = load_units(root)
    for target, compiler in plan.targets.items():
        kind = toolchain.family(target)
        work.units[target] = [
            (unit, _unit_job(root, scanner, target, compiler, unit)) for unit in table if kind in unit.targets
        ]
        work.objects += [job for _, job in work.units[target]]
        if target == "cpu":
            runtime = [
                _job(target, source, (*compiler.command(target), source), compiler, scanner, root / source)
                for source in _HOST_RUNTIME
            ]
            work.objects += runtime
            objects = [*(job for _, job in work.units[target]), *runtime]
            work.library = _link("cpu", "library", plan.cxx, cache, objects, ("-Wl,--no-undefined",), ())
    if extension:
        sources = list(_extension_jobs(root, scanner, plan.cxx, work.interface))
        work.objects += sources
        # Python's own symbols come from the interpreter that loads it.
        work.module = _link("host", "module", plan.cxx, cache, sources, (), ("-ldl", "-lpthread"))
    return work


def make_plan(requested: tuple[str, ...] | None) -> Plan:
    """Finds a compiler for each target; `requested` None means whatever can be built."""
    names = requested or toolchain.ALL_TARGETS
    plan = Plan(toolchain.find_cxx())
    if "cpu" in names:
        plan.targets["cpu"] = plan.cxx
    for kind, find in (("amd", toolchain.find_amd), ("nvidia", toolchain.find_nvidia)):
        wanted = tuple(name for name in names if toolchain.family(name) == kind)
        if not wanted:
            continue
        compiler, reasons = find(wanted)
        plan.left_out.update(reasons)
        if compiler is not None:
            plan.targets.update({name: compiler for name in wanted if name not in reasons})
    if requested and plan.left_out:
        problems = (f"{', '.join(names)} cannot be built: {why}" for why, names in plan.left_out_by_reason().items())
        raise BuildError("; ".join(problems))
    return plan


def interface_digest(root: Path, scanner: IncludeScanner | None = None) -> str:
    """Of the headers that host code and kernels share: code built from others is refused when it is loaded."""
    scanner = scanner or IncludeScanner(root, (root / "csrc", root))
    kernels = (root / "kernels").resolve()
    shared = {p for source in _host_sources(root) for p in scanner.closure(source) if p.is_relative_to(kernels)}
    return scanner.fingerprint(sorted(shared))[:16]


def requested(targets: Sequence[str] | None) -> tuple[str, ...] | None:
    """The targets that `targets` or else ROCMFORGE_TARGETS names; None for all that can be built."""
    given = ",".join(targets) if targets else os.environ.get("ROCMFORGE_TARGETS", "")
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names or names == ("all",):
        return None
    for name in names:
        toolchain.family(name)
    return names


def _unit_job(root: Path, scanner: IncludeScanner, target: str, compiler: Compiler, unit: Unit) -> Job:
    command = (*compiler.command(target), *toolchain.define_flags(target, unit.defines), unit.source)
    return _job(target, unit.name, command, compiler, scanner, root / unit.source)


def _extension_jobs(root: Path, scanner: IncludeScanner, cxx: Compiler, interface: str) -> Iterator[Job]:
    try:
        import pybind11
    except ImportError:
        raise BuildError("building the host module needs pybind11: pip install pybind11") from None
    # Under pip's build isolation both lie in a temporary environment.
    headers = (
        (f"-I{pybind11.get_include()}", f"pybind11 {_contents(Path(pybind11.get_include()))}"),
        (f"-I{sysconfig.get_path('include')}", f"{sys.version} {sysconfig.get_config_var('SOABI')}"),
    )
    flags = [flag for flag in toolchain.host_flags() if not flag.startswith("-march")]
    for source in _host_sources(root):
        name = str(source.relative_to(root))
        # Only the file that names it: a change of one kernel's arguments does not recompile the whole host side.
        digest = (f'-DROCMFORGE_INTERFACE="{interface}"',) if b"ROCMFORGE_INTERFACE" in source.read_bytes() else ()
        command = (
            cxx.path,
            *flags,
            "-O2",
            "-Wall",
            "-Wextra",
            *(flag for flag, _ in headers),
            "-Icsrc",
            "-I.",
            *digest,
            "-c",
            name,
        )
        yield _job("host", name, command, cxx, scanner, source, headers)


def _host_sources(root: Path) -> list[Path]:
    return sorted((root / "csrc").rglob("*.cpp"))


def _contents(folder: Path) -> str:
    """Digest of the files under `folder`."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        total.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def _job(
    target: str,
    name: str,
    command: tuple[str, ...],
    compiler: Compiler,
    scanner: IncludeScanner,
    source: Path,
    places: tuple[tuple[str, str], ...] = (),
) -> Job:
    folder = source.parent.name
    family = source.stem if source.stem == folder else f"{folder}/{source.stem}"
    contents = scanner.fingerprint(scanner.closure(source))
    suffix = ".o" if target == "host" else _SUFFIXES[toolchain.family(target)]
    return Job(
        target,
        name,
        "host module" if target == "host" else family,
        command,
        (compiler.version, contents),
        suffix,
        ((compiler.path, "compiler"), *places),
    )


def _link(
    target: str,
    name: str,
    cxx: Compiler,
    cache: Cache,
    objects: Sequence[Job],
    before: tuple[str, ...],
    after: tuple[str, ...],
) -> Job:
    paths = tuple((str(cache.path(job.result)), job.result) for job in objects)
    command = (cxx.path, "-shared", *before, *(path for path, _ in paths), *after)
    return Job(target, name, LINK, command, (cxx.version,), ".so", ((cxx.path, "compiler"), *paths))
