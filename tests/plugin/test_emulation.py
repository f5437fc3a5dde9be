# SPDX-License-Identifier: Apache-2.0
"""ROCMFORGE_EMULATE without an engine: what it changes, what is refused, and that everything that prints says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import vllm.platforms
from vllm.v1.attention.selector import AttentionSelectorConfig

from rocmforge_plugin import cli, device, emulation, ops, selftest, served
from rocmforge_plugin.evaluate import command, report, rule
from rocmforge_plugin.evaluate.records import Run
from rocmforge_plugin.ops.planner import AttentionPlanner
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm import BACKEND_PATH, register
from rocmforge_plugin.vllm.backend import target
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from rocmforge_plugin.vllm.report import LaunchCounts
from tests import HANG
from tests.emulated import emulated, skip_unless_built

pytestmark = pytest.mark.skipif(not vllm.platforms.current_platform.is_cpu(), reason="emulates on the CPU platform")
CPU = torch.device("cpu")
LABEL = "gfx942 code executed on the CPU (emulation, no GPU)"
GLM = AttentionSelectorConfig(head_size=128, dtype=torch.bfloat16, kv_cache_dtype="auto", block_size=None)


@pytest.fixture
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that says gfx942 and gfx1100 are built, and what has been opened is forgotten."""
    for name in ("gfx942", "gfx1100"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernels.txt").write_text("interface none\n")
    monkeypatch.setenv("ROCMFORGE_KERNELS", str(tmp_path))
    monkeypatch.setattr(device, "_open_devices", {})
    return tmp_path


@pytest.fixture(autouse=True)
def registered() -> None:
    """As in vLLM's processes, which load the plugin before they ask for a backend."""
    register.register()


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (
            "gfx943",
            "ROCMFORGE_EMULATE is gfx943, which is none of rocmforge's AMD targets; it must be one of gfx942, gfx1100",
        ),
        ("cpu", "ROCMFORGE_EMULATE is cpu, which is none of rocmforge's AMD targets"),
        ("gfx950", "ROCMFORGE_EMULATE is gfx950, which is not built in .*; it must be one of gfx942, gfx1100"),
        ("gfx950", "ROCMFORGE_TARGETS=gfx950 python -m rocmforge_build"),
    ],
)
def test_other_targets_are_refused(
    named: str, said: str, kernels: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the operations, by vLLM's selection and by doctor, in the same words."""
    monkeypatch.setenv("ROCMFORGE_EMULATE", named)
    with pytest.raises(device.DeviceError, match=said):
        ops.causal_mask(torch.zeros(2, 2))
    platform = vllm.platforms.current_platform
    with pytest.raises(ValueError, match=said):
        platform.get_attn_backend_cls(register.backend_member(), GLM, num_heads=32)
    assert cli.main(["doctor"]) == 1
    assert (
        len([line for line in capsys.readouterr().out.splitlines() if line.startswith("cpu: ROCMFORGE_EMULATE")]) == 1
    )


def test_an_installed_wheel_says_what_is_missing(
    kernels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "ROOT", tmp_path)
    monkeypatch.setenv("ROCMFORGE_EMULATE", "gfx942")
    with pytest.raises(device.DeviceError, match="amdgpu, is part of rocmforge's source tree and not of what is"):
        device.open_device("cpu")


def test_what_amdgpu_lacks_is_said(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def library(*_: object) -> str:
        raise OSError("no compiler")

    monkeypatch.setattr(emulation, "library", library)
    monkeypatch.setenv("ROCMFORGE_EMULATE", "gfx942")
    with pytest.raises(device.DeviceError, match="is gfx942, but amdgpu cannot be used: no compiler"):
        device.open_device("cpu")


def test_a_vllm_on_a_gpu_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_built("gfx942")
    gpu = SimpleNamespace(is_cpu=lambda: False, is_rocm=lambda: True, device_name="rocm")
    monkeypatch.setattr(target, "current_platform", gpu)
    monkeypatch.setenv("ROCMFORGE_EMULATE", "gfx942")
    (reason,) = target.device_refusals()
    assert "ROCMFORGE_EMULATE is gfx942, which is executed on the CPU, but this vLLM runs on rocm" in reason


@pytest.mark.parametrize("named", ["gfx942", "gfx1201"])
def test_the_cpu_answers_as_an_amd_gpu(named: str) -> None:
    """What an AMD user would be refused is refused, in the operations and in vLLM, and all that is served is."""
    skip_unless_built(named)
    assert device.target_of(CPU) == target.target() == "cpu"
    with emulated(named):
        assert device.target_of(CPU) == target.target() == "amd"
        opened = device.open_device("cpu")
        assert (opened.kind, opened.target, opened.compute_units) == ("hip", named, emulation.COMPUTE_UNITS)
        assert device.known(-1) is opened and device.stream_of(-1) == 0
        float32 = Problem("float32", 4, 2, 128, 128)
        with pytest.raises(TypeError, match="dtype is float32; it must be bfloat16 or float16 on the amd target"):
            AttentionPlanner(float32, "cpu", 1, 1)
        with pytest.raises(ValueError, match="core is Mfma16x16x16"):
            AttentionPlanner(Problem("bfloat16", 4, 2, 128, 128, core="Mfma16x16x16"), "cpu", 1, 1)
        platform, member = vllm.platforms.current_platform, register.backend_member()
        assert platform.get_attn_backend_cls(member, GLM, num_heads=32) == BACKEND_PATH
        with pytest.raises(ValueError, match="--dtype is float32, .* it must be bfloat16 or float16 on the amd target"):
            platform.get_attn_backend_cls(member, GLM._replace(dtype=torch.float32), num_heads=32)
        with pytest.raises(ValueError, match="head_size is 512"):
            RocmForgeImpl(4, 512, 1.0, 2, logits_soft_cap=50.0)
        names = {case.name.rpartition(" ")[2] for case in selftest.cases(CPU)}
        assert names == set(served.DTYPES["amd"])
        assert command.default_dtypes(os.environ) == ["bfloat16"]
    assert device.target_of(CPU) == target.target() == "cpu"
    assert "float32" in command.default_dtypes(os.environ)
    assert command.default_dtypes({"ROCMFORGE_EMULATE": named}) == ["bfloat16"]


def test_whatever_prints_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    skip_unless_built("gfx942")
    assert LaunchCounts().rocmforge_emulated() is None
    with emulated("gfx942"):
        assert LaunchCounts().rocmforge_emulated() is None, "no kernel can have run yet"
        assert device.summary("cpu").startswith(f"{LABEL}, gfx942:")
        assert LaunchCounts().rocmforge_emulated() == LABEL
        assert cli.main(["doctor"]) == 0
        assert LABEL in capsys.readouterr().out
        monkeypatch.setattr(selftest, "cases", lambda device: iter(()))
        assert cli.main(["selftest", "--device", "cpu"]) == 0
        first, last = capsys.readouterr().out.splitlines()
        assert LABEL in first and last == f"0 of 0 cases passed: {LABEL}"
    assert "emulation" not in device.summary("cpu")


def test_the_evaluation_says_so(tmp_path: Path) -> None:
    reference, candidate = Run("CPU_ATTN", "bfloat16", []), Run("rocmforge", "bfloat16", [])

    def written() -> list[str]:
        legs = [report.Leg(reference, candidate, rule.judge(reference, candidate))]
        return [report.as_text(legs), *(path.read_text() for path in report.write(legs, tmp_path))]

    assert not any("emulation, no GPU" in text for text in written())
    candidate.about["emulation"] = LABEL
    assert all(f"rocmforge's kernels: {LABEL}." in text.replace("&#x27;", "'") for text in written())


def test_an_editable_installation_finds_amdgpu(tmp_path: Path) -> None:
    """Of the source tree it has this package alone on its path."""
    skip_unless_built("gfx942")
    script = (
        "import sys, importlib.util; root = sys.argv[1]\n"
        "spec = importlib.util.spec_from_file_location('rocmforge_plugin', root + '/rocmforge_plugin/__init__.py')\n"
        "sys.modules['rocmforge_plugin'] = package = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(package)\n"
        "assert importlib.util.find_spec('amdgpu') is None\n"
        "print(package.summary('cpu'))"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(emulation.ROOT)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG,
        env=clean | {"ROCMFORGE_EMULATE": "gfx942"},
    )
    assert LABEL in done.stdout, done.stderr
