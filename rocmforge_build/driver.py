# SPDX-License-Identifier: Apache-2.0
"""What to compile, and where the results go.

Environment: ROCMFORGE_TARGETS (for example ``cpu,gfx942``; default: all whose compiler is found), ROCMFORGE_JOBS,
ROCMFORGE_CACHE (default ``build/cache``), and the compilers' names (see toolchain.py).
"""

from __future__ import annotations

import fcntl
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import toolchain
from .includes import IncludeScanner
from .jobs import BuildError, Job, Report, Runner, install
from .toolchain import Compiler
from .units import Unit, load_units

ROOT = Path(__file__).resolve().parent.parent
CPU_LIBRARY = "librocmforge_cpu.so"
INDEX = "kernels.txt"  # one line per kernel, `KERNEL FILE`; the runtime finds code by it
_HOST_RUNTIME = ("kernels/target/host_block.cpp",)  # sources of the CPU library besides the units


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


def say(line: str) -> None:
    """Default progress output."""
    print(f"rocmforge: {line}", file=sys.stderr, flush=True)


def build(package: Path, *, root: Path = ROOT, targets: Sequence[str] | None = None, jobs: int | None = None,
          extension: bool = True, progress: Callable[[str], None] = say) -> Report:
    """Builds kernels (and the host module, if `extension`) into `package`, the folder of ``rocmforge_plugin``.

    Args:
        targets: names such as ``cpu``, ``gfx942``, ``sm_90``; default ROCMFORGE_TARGETS, else all that can be built.
            A target that is named and cannot be built is an error; one that is only a default is left out with a line.
    Raises:
        BuildError: a compiler is missing or a source does not compile.
    """
    cache = Path(os.environ.get("ROCMFORGE_CACHE") or root / "build" / "cache")
    workers = jobs or int(os.environ.get("ROCMFORGE_JOBS") or 0) or os.cpu_count() or 1
    with _only_one(cache):
        plan = make_plan(_requested(targets))
        for reason, names in plan.left_out_by_reason().items():
            progress(f"left out: {', '.join(names)}: {reason}")
        units = load_units(root)
        scanner = IncludeScanner(root, (root / "csrc", root))
        runner = Runner(root, cache, workers, progress)
        kernel_jobs = list(_kernel_jobs(root, scanner, plan, units))
        extension_jobs = list(_extension_jobs(root, scanner, plan.cxx)) if extension else []
        progress(f"{len(kernel_jobs) + len(extension_jobs)} objects for {', '.join(plan.targets)}, {workers} at a time")
        done = runner.run([job for _, _, job in kernel_jobs] + extension_jobs)
        interface = interface_digest(root, scanner)
        for target in plan.targets:
            mine = [(unit, done[job]) for t, unit, job in kernel_jobs if t == target]
            _install_target(package, target, mine, interface, runner, plan.cxx)
        if extension:
            module = _link(runner, plan.cxx, "host module", [done[job] for job in extension_jobs])
            install(module, package / ("_C" + sysconfig.get_config_var("EXT_SUFFIX")))
        runner.drop_unused()
    report = runner.report
    progress(f"done: {report.compiled} compiled, {report.cached} unchanged, {report.seconds:.1f} s")
    return report


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


def _requested(targets: Sequence[str] | None) -> tuple[str, ...] | None:
    given = ",".join(targets) if targets else os.environ.get("ROCMFORGE_TARGETS", "")
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",") if name.strip()))
    if not names or names == ("all",):
        return None
    for name in names:
        toolchain.family(name)
    return names


def _kernel_jobs(root: Path, scanner: IncludeScanner, plan: Plan,
                 units: Sequence[Unit]) -> Iterator[tuple[str, Unit | None, Job]]:
    for target, compiler in plan.targets.items():
        kind = toolchain.family(target)
        suffix = {"cpu": ".o", "amd": ".co", "nvidia": ".cubin"}[kind]
        for unit in units:
            if kind in unit.targets:
                command = (*compiler.command(target), *toolchain.define_flags(target, unit.defines), unit.source)
                label = f"{target} {unit.name}"
                yield target, unit, _job(label, command, compiler, scanner, root / unit.source, suffix)
        if kind == "cpu":
            for source in _HOST_RUNTIME:
                command = (*compiler.command(target), source)
                yield target, None, _job(f"{target} {source}", command, compiler, scanner, root / source, suffix)


def _extension_jobs(root: Path, scanner: IncludeScanner, cxx: Compiler) -> Iterator[Job]:
    try:
        import pybind11
    except ImportError:
        raise BuildError("building the host module needs pybind11: pip install pybind11") from None
    includes = (f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}", "-Icsrc", "-I.")
    versions = (f"pybind11 {pybind11.__version__}", sys.version)
    digest = f'-DROCMFORGE_INTERFACE="{interface_digest(root, scanner)}"'
    for source in _host_sources(root):
        name = str(source.relative_to(root))
        # Only the file that names it: a change of one kernel's arguments does not recompile the whole host side.
        extra = (digest,) if b"ROCMFORGE_INTERFACE" in source.read_bytes() else ()
        flags = [flag for flag in toolchain.host_flags() if not flag.startswith("-march")]
        command = (cxx.path, *flags, "-O2", "-Wall", "-Wextra", *includes, *extra, "-c", name)
        yield _job(f"host {name}", command, cxx, scanner, source, ".o", *versions)


def _host_sources(root: Path) -> list[Path]:
    return sorted((root / "csrc").rglob("*.cpp"))


def _job(label: str, command: tuple[str, ...], compiler: Compiler, scanner: IncludeScanner, source: Path, suffix: str,
         *more: str) -> Job:
    contents = scanner.fingerprint(scanner.closure(source))
    return Job(label, command, (compiler.version, contents, *more), suffix)


def _link(runner: Runner, cxx: Compiler, label: str, objects: list[Path]) -> Path:
    command = (cxx.path, "-shared", "-Wl,--no-undefined", *map(str, objects))
    if label == "host module":  # Python's own symbols come from the interpreter that loads it
        command = (cxx.path, "-shared", *map(str, objects), "-ldl", "-lpthread")
    job = Job(label, command, (cxx.version,), ".so")
    return runner.run([job])[job]


def _install_target(package: Path, target: str, built: list[tuple[Unit | None, Path]], interface: str, runner: Runner,
                    cxx: Compiler) -> None:
    folder = package / "_kernels" / target
    files: dict[str, Path] = {}
    lines = [f"interface {interface}"]
    if target == "cpu":
        files[CPU_LIBRARY] = _link(runner, cxx, "cpu library", [path for _, path in built])
        lines += [f"{kernel} {CPU_LIBRARY}" for unit, _ in built if unit for kernel in unit.kernels]
    else:
        for unit, path in built:
            if unit:
                files[unit.name + path.suffix] = path
                lines += [f"{kernel} {unit.name}{path.suffix}" for kernel in unit.kernels]
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        install(path, folder / name)
    (folder / INDEX).write_text("\n".join(lines) + "\n")
    for stale in folder.iterdir():
        if stale.name not in files and stale.name != INDEX:
            stale.unlink()


@contextmanager
def _only_one(cache: Path) -> Iterator[None]:
    """One build at a time in one cache: pip and a developer's build must not write the same files."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache.parent / f"{cache.name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another build holds {lock.name}: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
