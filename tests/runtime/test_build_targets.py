# SPDX-License-Identifier: Apache-2.0
"""Which targets are taken, and that what the table says reaches each one's compiler unharmed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rocmforge_build import BuildError, build, code_object, driver, toolchain, work
from rocmforge_build.units import load_units
from rocmforge_plugin import served

from .conftest import compiler_of

SIBLINGS = ("gfx1101", "gfx1150", "gfx9-4-generic", "gfx11-generic", "gfx12-generic")
WITHOUT_CORE = ("gfx1250", "gfx1251", "gfx1170", "gfx1030", "gfx908", "gfx90c", "gfx9-generic", "gfx10-3-generic")
PRODUCT = """
#include "kernels/target/device.h"
#include "kernels/matrix/select.h"
#include "kernels/matrix/mma.h"
using namespace rocmforge;
template <class T>
struct Product {
  using Core = RF_CORE<T>;
  struct Args { OperandA<Core> a; OperandB<Core> b; Accumulator<Core>* c; };
  static constexpr int kWavesPerUnit = 1;
  static constexpr LaunchConfig kConfig{.wave = Core::kWave, .threads = Core::kWave};
  RF_DEVICE static void run(const Args& args) { products<Core, 1, 0, 0, 0>(args.c, &args.a, &args.b); }
};
RF_KERNEL(product_bf16, Product<bf16>)
RF_KERNEL(product_f16, Product<f16>)
"""
WORDS = """
template <class T, int N> struct Of { static constexpr int k = N; };
template <class A, class B> struct Pair { static constexpr int k = 10 * A::k + B::k; };
struct Plain { static constexpr int k = 4; };
#include "../target/device.h"
namespace rocmforge {
struct Words {
  struct Args { int32_t* out; };
  static constexpr int kWavesPerUnit = 1;
  static constexpr LaunchConfig kConfig{.wave = 1, .threads = WORDS::k};
  RF_DEVICE static void run(const Args& args) { *args.out = WORDS::k; }
};
}
static_assert(WORDS::k == 34 && COUNT == 7);
RF_KERNEL(words, rocmforge::Words)
"""


def test_targets_are_the_served_ones() -> None:
    assert set(toolchain.ALL_TARGETS) == {"cpu", *served.AMD_ARCHS, *served.NVIDIA_ARCHS}
    assert set(code_object.PROCESSORS) == set(served.AMD_ARCHS)


@pytest.mark.parametrize("target", WITHOUT_CORE)
def test_a_gpu_without_a_matrix_core_is_refused(monkeypatch: pytest.MonkeyPatch, tree: Path, target: str) -> None:
    monkeypatch.setenv("ROCMFORGE_TARGETS", f"cpu,{target}")
    with pytest.raises(BuildError, match=f"^{target} cannot be built: .*no matrix core.* gfx1201, their siblings"):
        build(tree / "package", root=tree, extension=False)
    with pytest.raises(BuildError, match=f"^{target} cannot be built"):
        work.make_plan((target,))


@pytest.mark.parametrize("arch", ["gfx1250", "gfx1251", "gfx1030", "gfx908", "gfx9-generic"])
def test_the_kernels_refuse_it_too(tmp_path: Path, arch: str) -> None:
    """Whatever the compiler's macros for its family are, no other GPU's core is taken."""
    compiler = compiler_of("gfx1201")
    source = tmp_path / "product.hip"
    source.write_text(PRODUCT)
    command = [word.replace("gfx1201", arch) for word in compiler.command("gfx1201")]
    done = subprocess.run([*command, "-fsyntax-only", f"-I{driver.ROOT}", str(source)], capture_output=True, text=True)
    assert done.returncode != 0
    if "invalid offload arch" in done.stderr or "unknown target CPU" in done.stderr:
        pytest.skip(f"{compiler.path} does not know {arch}")
    assert "no matrix core is described for this architecture" in done.stderr


def test_an_nvidia_gpu_without_the_products_is_refused() -> None:
    assert toolchain.family("sm_89") == toolchain.family("sm_120") == "nvidia"
    with pytest.raises(BuildError, match="sm_75 cannot be built: .* sm_80"):
        toolchain.family("sm_75")


@pytest.mark.parametrize("target", [*served.AMD_ARCHS, *SIBLINGS])
def test_every_amd_target_that_is_taken_has_a_matrix_core(tmp_path: Path, target: str) -> None:
    """Down to machine code: the compiler's front end takes instructions that a target lacks."""
    compiler = compiler_of(target)
    source = tmp_path / "product.hip"
    source.write_text(PRODUCT)
    command = [*compiler.command(target), f"-I{driver.ROOT}", str(source), "-o", str(tmp_path / "product.co")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]


@pytest.mark.parametrize("target", ["cpu", "gfx942", "sm_80"])
def test_types_with_commas_reach_the_compiler(tree: Path, target: str) -> None:
    if target != "cpu":
        compiler_of(target)
    (tree / "kernels" / "toy" / "words.hip").write_text(WORDS)
    (tree / "kernels" / "variants.py").write_text(
        "from rocmforge_build.units import Unit\n"
        "UNITS = [Unit('words', 'kernels/toy/words.hip', ('words',),\n"
        "              {'WORDS': 'Pair<Of<unsigned char,3>, Plain>', 'COUNT': 7})]\n"
    )
    build(tree / "package", root=tree, targets=[target], extension=False)
    assert "words" in (tree / "package" / "_kernels" / target / "kernels.txt").read_text()


@pytest.mark.parametrize("define", ["'A': '$(true)'", "'A': 'a\\nb'", "'A B': 1", "'A': ''", "'A': '\"x\"'"])
def test_defines_that_a_shell_would_change_are_refused(tree: Path, define: str) -> None:
    (tree / "kernels" / "variants.py").write_text(
        f"from rocmforge_build.units import Unit\nUNITS = [Unit('u', 'kernels/toy/toy.hip', ('x',), {{{define}}})]\n"
    )
    with pytest.raises(BuildError, match="unit u: the define A.* is not a name"):
        load_units(tree)


def test_the_table_sees_its_own_tree_and_leaves_no_trace(tree: Path) -> None:
    (tree / "beside_the_table.py").write_text("NAME = 'toy'\n")
    (tree / "kernels" / "variants.py").write_text(
        "import sys\nimport beside_the_table\nfrom rocmforge_build.units import Unit\nsys.path.append('/nowhere')\n"
        "UNITS = [Unit(beside_the_table.NAME, 'kernels/toy/toy.hip', ('x',))]\n"
    )
    before = sys.path.copy()
    try:
        assert [unit.name for unit in load_units(tree)] == ["toy"]
    finally:
        sys.modules.pop("beside_the_table", None)
    assert sys.path == before
