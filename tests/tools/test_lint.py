# SPDX-License-Identifier: Apache-2.0
"""The lint step: what it runs, with which tools, and how it fails."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from tools import environment, lint

ROOT = environment.ROOT


def setting(name: str) -> str:
    """A quoted value in pyproject.toml (Python 3.10 has no reader for it)."""
    found = re.findall(rf'^{name} = "([^"]*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(found) == 1, name
    return found[0]


def test_one_least_python() -> None:
    """The package, the tools that make environments, and what lint holds the sources to agree."""
    least = ".".join(map(str, environment.MIN_PYTHON))
    assert setting("requires-python") == f">={least}"
    assert setting("python_version") == least
    assert setting("target-version") == f"py{least.replace('.', '')}"


def test_every_source_is_looked_at() -> None:
    listed = subprocess.run(["git", "ls-files", "*.h", "*.hip", "*.cpp"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert set(listed.stdout.split()) <= set(lint.cpp_files())
    commands = " ".join(" ".join(command) for command, _ in lint.checks(pathlib.Path("bin")).values())
    assert all(word in commands for word in ("ruff check", "bin/mypy", "ruff format --check", "bin/clang-format"))


def test_every_check_runs_and_each_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def command(words: str, status: int) -> list[str]:
        return [sys.executable, "-c", f"print({words!r}); raise SystemExit({status})"]

    made = {
        "first": (command("one", 1), "make format mends it"),
        "second": (command("two", 0), ""),
        "third": (command("three", 2), ""),
    }
    monkeypatch.setattr(lint, "checks", lambda _: made)
    assert lint.lint(pathlib.Path("bin")) == 1
    printed = capfd.readouterr()
    assert printed.out.split() == ["one", "two", "three"]
    assert re.search(r"first: FAILED.*\n.*second: clean.*\n.*third: FAILED", printed.err)
    assert printed.err.splitlines()[-1] == "[lint] FAILED: first (make format mends it); third"
    del made["first"], made["third"]
    assert lint.lint(pathlib.Path("bin")) == 0


def test_the_tools_are_made_once(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        (tmp_path / "venv").mkdir()
        return subprocess.CompletedProcess(command, 0)

    def pip(python: str, pins: list[str], total: int, what: str) -> bool:
        assert python == str(tmp_path / "venv" / "bin" / "python") and total == len(pins)
        calls.append(pins)
        return True

    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr(lint, "ROOT", tmp_path)
    monkeypatch.setattr(lint, "VENV", tmp_path / "venv")
    monkeypatch.setattr(environment, "require_system_packages", lambda compiler: calls.append([str(compiler)]))
    monkeypatch.setattr(environment, "pip", pip)
    monkeypatch.setattr(lint.subprocess, "run", run)
    assert lint.tools() == lint.tools() == tmp_path / "venv" / "bin"
    needed, venv, pins = calls
    assert needed == ["False"] and venv[1:] == ["-m", "venv", "--clear", str(tmp_path / "venv")]
    assert {pin.split("==")[0] for pin in pins} >= {"ruff", "mypy", "clang-format"}


def test_types_do_not_depend_on_what_is_installed() -> None:
    """Neither vLLM nor torch, which differ from machine to machine, may decide whether lint is clean."""
    text = (ROOT / "pyproject.toml").read_text()
    skipped = re.search(r"module = \[([^\]]*)\]\nfollow_imports = \"skip\"\nignore_missing_imports = true", text)
    assert skipped and "no_site_packages = true" in text
    assert {'"torch.*"', '"vllm.*"', '"transformers.*"', '"numpy.*"'} <= set(re.findall(r'"[^"]+"', skipped[1]))
