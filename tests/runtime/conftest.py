# SPDX-License-Identifier: Apache-2.0
"""A small source tree with toy kernels, and the fake GPU driver library."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rocmforge_build import build, toolchain

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]

VARIANTS = """
from rocmforge_build.units import Unit
UNITS = [Unit(name="toy", source="kernels/toy/toy.hip", kernels=("toy_count", "toy_hang"), targets=("cpu",)),
         Unit(name="lone", source="kernels/toy/lone.hip", kernels=("lone",), targets=("cpu", "amd"))]
"""
LONE = """
#include "../target/device.h"
namespace rocmforge {
struct Lone {
  struct Args { int32_t* out; };
  static constexpr int kWavesPerUnit = 1;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = 1};
  RF_DEVICE static void run(const Args& args) { *args.out = 7; }
};
}
RF_KERNEL(lone, rocmforge::Lone)
"""


def make_tree(root: Path) -> Path:
    """The real dialect with toy kernels instead of ours; no host module."""
    (root / "kernels" / "toy").mkdir(parents=True)
    shutil.copytree(REPOSITORY / "kernels" / "target", root / "kernels" / "target")
    shutil.copy(REPOSITORY / "kernels" / "launch_config.h", root / "kernels")
    (root / "kernels" / "variants.py").write_text(VARIANTS)
    shutil.copy(HERE / "toy.hip", root / "kernels" / "toy")
    (root / "kernels" / "toy" / "toy_scale.h").write_text("#define TOY_SCALE 1\n")
    (root / "kernels" / "toy" / "lone.hip").write_text(LONE)
    return root


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh toy tree with a cache of its own."""
    monkeypatch.setenv("ROCMFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ROCMFORGE_TARGETS", raising=False)
    return make_tree(tmp_path / "tree")


def accept(kernels: Path) -> Path:
    """Marks toy kernels as built from this module's sources, which they share no arguments with."""
    from rocmforge_plugin import _C

    for index in kernels.glob("*/kernels.txt"):
        lines = index.read_text().splitlines()
        index.write_text("\n".join([f"interface {_C.interface}", *lines[1:]]) + "\n")
    return kernels


@pytest.fixture(scope="session")
def toy_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernels folder with the toy kernels for the CPU."""
    root = tmp_path_factory.mktemp("toy")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROCMFORGE_CACHE", str(root / "cache"))
        build(root / "package", root=make_tree(root / "tree"), targets=["cpu"], extension=False)
    return accept(root / "package" / "_kernels")


def compiler_of(target: str) -> toolchain.Compiler:
    """The compiler of a GPU target; the test is skipped where there is none."""
    find = {"amd": toolchain.find_amd, "nvidia": toolchain.find_nvidia}[toolchain.family(target)]
    compiler, missing = find((target,))
    if compiler is None or missing:
        raise pytest.skip.Exception(missing[target])
    return compiler


@pytest.fixture(scope="session")
def compile_shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Called with (source, name, *flags): the path of the shared library, compiled once per name."""
    folder = tmp_path_factory.mktemp("shared")

    def compile_it(source: Path, name: str, *flags: str) -> Path:
        out = folder / name
        if out.exists():  # one name, one library: a loaded one is not written over
            return out
        command = [toolchain.find_cxx().path, "-std=c++20", "-shared", "-fPIC", *flags, str(source), "-o", str(out)]
        subprocess.run(command, check=True)
        return out

    return compile_it
