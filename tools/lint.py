#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`make lint` and `make format`: the checks that need no build, and what mends a file's form.

    python3 -m tools.lint             # every check; the exit status is 1 if one fails
    python3 -m tools.lint --format    # sort imports and lay out Python and C++ anew

The tools are those of requirements/lint.lock, in an environment of their own, build/lint-venv: neither vLLM nor torch
nor a compiler is needed, and whether they are installed changes nothing.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pathlib
import subprocess
import sys
import time

from tools import environment

ROOT = environment.ROOT
VENV = ROOT / "build" / "lint-venv"
# Folders of C++, and what its files are called.
CPP_FOLDERS = ("amdgpu", "kernels", "csrc", "tests")
CPP_SUFFIXES = (".h", ".cpp", ".hip")


def say(text: str) -> None:
    """Progress, between the words of the tools."""
    print(f"[lint] {text}", file=sys.stderr, flush=True)


def tools() -> pathlib.Path:
    """The folder of the pinned tools; makes their environment when it is not there yet."""
    lock = environment.LOCKS / "lint.lock"
    environment.require_python(list(sys.version_info[:3]), environment.MIN_PYTHON, "by rocmforge")
    wanted = environment.digest(lock.read_text(), sys.version_info[:2], VENV)
    if not environment.ready(VENV, wanted):
        environment.require_system_packages(compiler=False)
        say(f"making {VENV.relative_to(ROOT)} from requirements/{lock.name}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
        pins = environment.requirements(lock)
        if not environment.pip(str(VENV / "bin" / "python"), pins, len(pins), "tools"):
            environment.stop("the tools are incomplete; run again to continue")
        environment.finish(VENV, wanted)
    return VENV / "bin"


def cpp_files() -> list[str]:
    """Every C++ source, from the root."""
    found = (path for folder in CPP_FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in CPP_SUFFIXES)
    return sorted(str(path.relative_to(ROOT)) for path in found)


def checks(bin_: pathlib.Path) -> dict[str, tuple[list[str], str]]:
    """(command, what mends it) of each check, by its name."""
    ruff, clang_format = str(bin_ / "ruff"), str(bin_ / "clang-format")
    return {
        "ruff check": ([ruff, "check", "."], "build/lint-venv/bin/ruff check --fix mends some"),
        # Without what an earlier run remembers: a stub that has been added since is not always seen by it.
        "mypy": ([str(bin_ / "mypy"), "--cache-dir=/dev/null"], ""),
        "form of Python": ([ruff, "format", "--check", "."], "make format mends it"),
        "form of C++": ([clang_format, "-n", "-Werror", "--ferror-limit=1", *cpp_files()], "make format mends it"),
    }


def lint(bin_: pathlib.Path) -> int:
    """Runs every check, also after one that fails; the exit status."""
    failed = []
    for name, (command, mend) in checks(bin_).items():
        start = time.monotonic()
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        say(f"{name}: {'FAILED' if status else 'clean'} ({time.monotonic() - start:.1f} s)")
        if status:
            failed.append(f"{name} ({mend})" if mend else name)
    if failed:
        say(f"FAILED: {'; '.join(failed)}")
    return 1 if failed else 0


def format_all(bin_: pathlib.Path) -> int:
    """Sorts imports and lays out all sources anew; the exit status."""
    ruff = str(bin_ / "ruff")
    commands = (
        [ruff, "check", "--select", "I", "--fix", "."],
        [ruff, "format", "."],
        [str(bin_ / "clang-format"), "-i", *cpp_files()],
    )
    return max(subprocess.run(command, cwd=ROOT, check=False).returncode for command in commands)


def main() -> int:
    """Entry point; the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.lint", description=__doc__.splitlines()[0])
    parser.add_argument("--format", action="store_true", help="mend the form of all sources instead of checking")
    args = parser.parse_args()
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "lint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bin_ = tools()
        os.environ.pop("MYPYPATH", None)
        return format_all(bin_) if args.format else lint(bin_)


if __name__ == "__main__":
    sys.exit(main())
