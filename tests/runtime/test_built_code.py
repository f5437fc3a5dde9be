# SPDX-License-Identifier: Apache-2.0
"""What was built for each GPU target, read through the runtime as on a machine that has the GPU."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rocmforge_build import driver, toolchain, units
from rocmforge_plugin import _C
from rocmforge_plugin.device import kernels_dir

from .conftest import compiler_of
from .fake_gpu import SOURCE, Fake

TARGETS = sorted(path.parent.name for path in kernels_dir().glob("*/kernels.txt"))
GPU_TARGETS = [target for target in TARGETS if target != "cpu"]
WAVES = {"gfx9": 64, "gfx1": 32, "sm_": 32}


def open_device(target: str, compile_shared: Callable[..., Path]) -> _C.Device:
    fake = Fake(compile_shared(SOURCE, "libbuilt.so"))
    fake.reset()
    if target.startswith("sm_"):
        fake.capability(int(target[3:-1]), int(target[-1]))
    else:
        fake.arch(target.encode())
    return _C.Device("cuda" if target.startswith("sm_") else "hip", 0, str(kernels_dir()), fake.path)


def test_something_is_built() -> None:
    assert "cpu" in TARGETS, "build first: python -m rocmforge_build"


@pytest.mark.parametrize("target", TARGETS)
def test_index_follows_the_table(target: str) -> None:
    """Each row of the table is there, and was built from these sources."""
    lines = (kernels_dir() / target / "kernels.txt").read_text().splitlines()
    assert lines[0] == f"interface {_C.interface}"
    table = units.load_units(driver.ROOT)
    expected = {kernel for unit in table if toolchain.family(target) in unit.targets for kernel in unit.kernels}
    assert {line.split()[0] for line in lines[1:]} == expected


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_every_kernel_can_be_loaded(target: str, compile_shared: Callable[..., Path]) -> None:
    device = open_device(target, compile_shared)
    assert device.target == target
    wave = next(size for prefix, size in WAVES.items() if target.startswith(prefix))
    for name in device.kernel_names():
        config = device.kernel_config(name)
        assert config["wave"] in (1, wave), name
        assert 0 < config["threads"] <= 1024 and config["threads"] % wave == 0, name
        assert 0 <= config["shared_bytes"] <= 227 * 1024 and config["blocks_per_unit"] >= 1, name


@pytest.mark.parametrize("target", GPU_TARGETS)
def test_every_kernel_has_its_code(target: str) -> None:
    folder = kernels_dir() / target
    suffix = b"" if target.startswith("sm_") else b".kd"  # AMD's kernel descriptor
    for line in (folder / "kernels.txt").read_text().splitlines()[1:]:
        name, file = line.split()
        code = (folder / file).read_bytes()
        assert re.search(rb"\0" + name.encode() + suffix + rb"\0", code), f"{file} does not export {name}"


def test_every_cpu_kernel_can_be_loaded() -> None:
    device = _C.Device("cpu", 0, str(kernels_dir()))
    for name in device.kernel_names():
        config = device.kernel_config(name)
        assert config["wave"] in (1, 32, 64) and config["threads"] > 0, name


@pytest.mark.parametrize("head", [64, 128, 256])
@pytest.mark.parametrize("part", ["decode", "prefill"])
def test_ptxas_leaves_warpgroup_products_alone(part: str, head: int, tmp_path: Path) -> None:
    """It says so, as a remark (C7510 to C7519), where it runs products one by one or waits for them early."""
    compiler = compiler_of("sm_90")
    unit = next(u for u in units.load_units(driver.ROOT) if u.name == f"attention_{part}_bf16_d{head}")
    defines = toolchain.define_flags("sm_90", unit.defines)
    done = subprocess.run(
        [*compiler.command("sm_90"), *defines, unit.source, "-o", str(tmp_path / "cubin")],
        cwd=driver.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "(C75" not in done.stdout + done.stderr
