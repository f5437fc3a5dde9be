# SPDX-License-Identifier: Apache-2.0
"""Each core of kernels/matrix, compiled for each target that has it.

What its own functions of the layout say agrees with what the instruction does.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from amdgpu.kernel import load
from rocmforge_build import toolchain
from rocmforge_plugin.served import AMD_ARCHS

ROOT = Path(__file__).parents[3]
_CDNA = ("gfx90a", "gfx942", "gfx950")
# The shape m, n, k of each core and where it is.
CORES = {
    "Mfma16x16x16": ((16, 16, 16), _CDNA),
    "Mfma32x32x8": ((32, 32, 8), _CDNA),
    "Mfma16x16x32": ((16, 16, 32), ("gfx950",)),
    "Mfma32x32x16": ((32, 32, 16), ("gfx950",)),
    "WmmaGfx11": ((16, 16, 16), ("gfx1100", "gfx1151")),
    "DotGfx11": ((32, 4, 8), ("gfx1100", "gfx1151")),
    "WmmaGfx12": ((16, 16, 16), ("gfx1200", "gfx1201")),
}
_SOURCE = """
#include "kernels/matrix/select.h"

namespace rocmforge {

template <class Mma>
RF_DEVICE void multiply(const typename Mma::Element* a, const typename Mma::Element* b, const float* c, float* d) {
  const int l = thread_index();
  OperandA<Mma> x;
  OperandB<Mma> y;
  Accumulator<Mma> z;
  for (int e = 0; e < Mma::kA; ++e) x[e] = a[Mma::a_row(l, e) * Mma::kK + Mma::a_k(l, e)];
  for (int e = 0; e < Mma::kB; ++e) y[e] = b[Mma::b_k(l, e) * Mma::kN + Mma::b_col(l, e)];
  for (int r = 0; r < Mma::kC; ++r) z[r] = c[Mma::c_row(l, r) * Mma::kN + Mma::c_col(l, r)];
  z = Mma::mma(x, y, z);
  for (int r = 0; r < Mma::kC; ++r) d[Mma::c_row(l, r) * Mma::kN + Mma::c_col(l, r)] = z[r];
}

}  // namespace rocmforge
"""
_KERNEL = """
extern "C" __attribute__((global)) void {core}_{element}(const rocmforge::{element}* a, const rocmforge::{element}* b,
                                                         const float* c, float* d) {{
  rocmforge::multiply<rocmforge::{core}<rocmforge::{element}>>(a, b, c, d);
}}
"""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The code object of each target, with a kernel for each core and element."""
    compiler, missing = toolchain.find_amd(AMD_ARCHS)
    assert compiler is not None and not missing
    folder, running = tmp_path_factory.mktemp("cores"), []
    for target in AMD_ARCHS:
        source = _SOURCE
        for core, (_, targets) in CORES.items():
            if target in targets:
                source += "".join(_KERNEL.format(core=core, element=element) for element in ("bf16", "f16"))
        file = folder / f"{target}.hip"
        file.write_text(source)
        command = [*compiler.command(target), "-I", str(ROOT), str(file), "-o", str(file.with_suffix(".co"))]
        running.append((target, file.with_suffix(".co"), subprocess.Popen(command)))
    for _, _, process in running:
        assert process.wait() == 0
    return {target: made for target, made, _ in running}


def test_every_core_of_amd_is_here() -> None:
    """A header of kernels/matrix that has a struct for AMD's compilers has a row above."""
    found = set()
    for header in (ROOT / "kernels/matrix").glob("*.h"):
        text = header.read_text()
        if "__builtin_amdgcn" in text:
            found |= {line.split()[1] for line in text.splitlines() if line.startswith("struct ")}
    assert found == set(CORES)


@pytest.mark.parametrize("element", ["bf16", "f16"])
@pytest.mark.parametrize(
    ("core", "target"), [(core, target) for core, (_, targets) in CORES.items() for target in targets]
)
def test_cores(objects: dict[str, Path], core: str, target: str, element: str) -> None:
    (m, n, k), _ = CORES[core]
    random = np.random.default_rng(18)
    a, b, c = (random.integers(-8, 9, shape) for shape in ((m, k), (k, n), (m, n)))

    def stored(values: np.ndarray) -> np.ndarray:
        if element == "f16":
            return values.astype(np.float16)
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)

    arrays = [stored(a), stored(b), c.astype(np.float32), np.full((m, n), np.nan, np.float32)]
    kernel = load(objects[target], f"{core}_{element}")
    pointers = [int(array.ctypes.data).to_bytes(8, "little") for array in arrays]
    kernel.launch((1, 1, 1), (kernel.entry.lanes, 1, 1), pointers)
    assert (arrays[3] == a @ b + c).all()
    instruction = "v_dot2" if core.startswith("Dot") else f"_{m}x{n}x{k}"
    assert sum(count for name, count in kernel.executed().items() if instruction in name) > 0
