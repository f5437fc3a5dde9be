# SPDX-License-Identifier: Apache-2.0
"""The build driver: what is compiled when, and what is said when it cannot be."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rocmforge_build import BuildError, build, toolchain, work
from rocmforge_build.includes import IncludeScanner
from rocmforge_build.jobs import Report
from rocmforge_build.units import load_units

from .conftest import compiler_of


def run(tree: Path, **options) -> Report:
    return build(tree / "package", root=tree, **{"targets": ["cpu"], "extension": False, **options})


def test_second_build_compiles_nothing(tree: Path) -> None:
    first = run(tree)
    assert first.compiled == 4  # two units, the block scheduler, the library
    library = tree / "package" / "_kernels" / "cpu" / "librocmforge_cpu.so"
    before = library.stat()
    second = run(tree)
    assert (second.compiled, second.cached) == (0, first.compiled)
    assert library.stat().st_mtime_ns == before.st_mtime_ns and library.stat().st_ino == before.st_ino


def test_header_rebuilds_what_includes_it(tree: Path) -> None:
    run(tree)
    (tree / "kernels" / "toy" / "toy_scale.h").write_text("#define TOY_SCALE 2\n")
    lines: list[str] = []
    report = run(tree, progress=lines.append)
    assert report.compiled == 2  # toy and the library
    assert [line.split("] ")[1].split(" (")[0] for line in lines if line.startswith("[")] == ["cpu toy", "cpu library"]
    (tree / "kernels" / "toy" / "toy_scale.h").write_text("#define TOY_SCALE 1\n")
    assert run(tree).compiled == 0  # the first results are still there


def test_shared_header_rebuilds_all(tree: Path) -> None:
    compiled = run(tree).compiled
    header = tree / "kernels" / "launch_config.h"
    header.write_text(header.read_text() + "\nnamespace rocmforge { inline constexpr int kAdded = 1; }\n")
    assert run(tree).compiled >= compiled - 1  # the linked library may come out equal


def test_compiler_version_is_part_of_the_key(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tree)
    real = toolchain._version
    monkeypatch.setattr(toolchain, "_version", lambda path: real(path) + " patched")
    assert run(tree).compiled == 4


def test_defines_are_part_of_the_key(tree: Path) -> None:
    run(tree)
    table = tree / "kernels" / "variants.py"
    table.write_text(table.read_text().replace('kernels=("lone",)', 'kernels=("lone",), defines={"X": 1}'))
    assert run(tree).compiled >= 1


def test_index_names_every_kernel(tree: Path) -> None:
    run(tree)
    lines = (tree / "package" / "_kernels" / "cpu" / "kernels.txt").read_text().splitlines()
    assert lines[0] == f"interface {work.interface_digest(tree)}"
    assert set(lines[1:]) == {f"{k} librocmforge_cpu.so" for k in ("toy_count", "toy_hang", "lone")}


def test_stale_files_are_removed(tree: Path) -> None:
    run(tree)
    stale = tree / "package" / "_kernels" / "cpu" / "gone.co"
    stale.write_bytes(b"old")
    run(tree)
    assert not stale.exists()


def test_compile_error_shows_the_compilers_words(tree: Path) -> None:
    (tree / "kernels" / "toy" / "toy_scale.h").write_text("#error scale is missing\n")
    with pytest.raises(BuildError, match=r"cpu toy does not compile(.|\n)*scale is missing"):
        run(tree)
    assert not list((Path(tree.parent) / "cache").glob("tmp-*"))


def test_missing_include_is_named(tree: Path) -> None:
    (tree / "kernels" / "toy" / "toy_scale.h").write_text('#include "nowhere.h"\n')
    with pytest.raises(BuildError, match=r'toy_scale.h: #include "nowhere.h" is not found'):
        run(tree)


def test_conditional_includes_count(tree: Path) -> None:
    source = tree / "kernels" / "toy" / "lone.hip"
    source.write_text('#if 0\n#  include "toy_scale.h"\n#endif\n' + source.read_text())
    names = {path.name for path in IncludeScanner(tree).closure(source)}
    assert {"toy_scale.h", "launch_config.h", "host_block.h"} <= names


@pytest.mark.parametrize("target", ["gfx", "hopper", "sm80", "x86", "gfx942:xnack+"])
def test_unknown_target(tree: Path, target: str) -> None:
    with pytest.raises(BuildError, match="unknown target"):
        run(tree, targets=[target])


def test_targets_come_from_the_environment(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCMFORGE_TARGETS", "cpu, cpu")
    run(tree, targets=None)
    assert [path.name for path in (tree / "package" / "_kernels").iterdir()] == ["cpu"]


def test_targets_without_compiler_are_left_out_with_one_line(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_amd_names", lambda: iter(()))
    monkeypatch.setattr(shutil, "which", without(shutil.which, "nvcc"))
    lines: list[str] = []
    run(tree, targets=None, progress=lines.append)
    amd, nvidia = (line for line in lines if line.startswith("left out: "))
    assert amd.startswith("left out: " + ", ".join(toolchain.AMD_TARGETS) + ": no clang") and "ROCMFORGE_HIPCC" in amd
    assert nvidia.startswith("left out: sm_80, sm_90: no nvcc") and "ROCMFORGE_NVCC" in nvidia
    assert [path.name for path in (tree / "package" / "_kernels").iterdir()] == ["cpu"]


def test_a_target_that_was_asked_for_must_build(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "_amd_names", lambda: iter(()))
    with pytest.raises(BuildError, match="gfx942 cannot be built: no clang"):
        run(tree, targets=["cpu", "gfx942"])


def test_a_named_compiler_must_exist(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCMFORGE_HIPCC", "/nowhere/clang++")
    with pytest.raises(BuildError, match="ROCMFORGE_HIPCC=/nowhere/clang"):
        run(tree, targets=["gfx942"])


def test_amd_code_object_loads_on_rocm_6(tree: Path) -> None:
    compiler_of("gfx942")
    run(tree, targets=["gfx942"])
    code = (tree / "package" / "_kernels" / "gfx942" / "lone.co").read_bytes()
    assert code[:4] == b"\x7fELF"
    assert code[8] == 3  # ABI version of code object 5: ROCm 6.0 knows nothing later
    assert b"\0lone.kd\0" in code and b"\0lone_config\0" in code


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ('[Unit("a", "kernels/toy/none.hip", ("x",))]', "no such source"),
        (
            '[Unit("a", "kernels/toy/toy.hip", ("x",)), Unit("a", "kernels/toy/toy.hip", ("y",))]',
            "two units are named a",
        ),
        ('[Unit("a", "kernels/toy/toy.hip", ("x",)), Unit("b", "kernels/toy/toy.hip", ("x",))]', "by both a and b"),
        ('[Unit("a", "kernels/toy/toy.hip", ())]', "exports no kernel"),
    ],
)
def test_table_mistakes(tree: Path, rows: str, message: str) -> None:
    table = tree / "kernels" / "variants.py"
    table.write_text(f"from rocmforge_build.units import Unit\nUNITS = {rows}\n")
    with pytest.raises(BuildError, match=message):
        load_units(tree)


def without(which, missing: str):
    def looked_up(name, *args, **kwargs):
        return None if Path(name).name == missing else which(name, *args, **kwargs)

    return looked_up
