# SPDX-License-Identifier: Apache-2.0
"""From torch's devices to the runtime's, on whatever this machine has."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rocmforge_plugin import device as devices

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def test_the_cpu_is_opened_once() -> None:
    cpu = devices.open_device("cpu")
    assert cpu is devices.open_device(torch.device("cpu", 0)) is devices.known(torch.zeros(1).get_device())
    assert devices.stream_of(-1) == 0


def test_other_devices_are_refused() -> None:
    with pytest.raises(TypeError, match="GPUs .* and the CPU, not meta"):
        devices.open_device("meta")


def test_summary_is_one_line_with_target_device_and_variants() -> None:
    line = devices.summary("cpu")
    assert "\n" not in line
    assert re.match(r"cpu code on .+ \(\w+, \d+ threads\): ", line)
    assert "kv_write bf16 f16 float" in line and "causal_mask bf16 f16 float" in line


def test_threads_follow_torch() -> None:
    script = (
        "import torch; torch.set_num_threads(3); from rocmforge_plugin import device, _C; "
        "device.open_device('cpu'); print(_C.cpu_threads())"
    )
    clean = {name: value for name, value in os.environ.items() if name != "ROCMFORGE_CPU_THREADS"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=clean)
    assert done.stdout.strip() == "3", done.stderr


def test_kernels_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCMFORGE_KERNELS", str(tmp_path))
    monkeypatch.setattr(devices, "_open_devices", {})
    with pytest.raises(devices.DeviceError, match=f"in {tmp_path}. Built there: none"):
        devices.open_device("cpu")


CAPTURE = """
import torch
from rocmforge_plugin import device, ops
scores = torch.randn(3, 40, 40, device="cuda", dtype=torch.bfloat16)
before = scores.clone()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):  # global capture mode: the kernel's code is loaded here, for the first time
    ops.causal_mask(scores)
assert torch.equal(scores, before), "capturing must not run it"
graph.replay()
torch.cuda.synchronize()
keep = torch.ones(40, 40, device="cuda").tril().bool()
assert torch.equal(scores, before.masked_fill(~keep, float("-inf")))
assert sum(device.launches().values()) == 1, device.launches()
print("captured")
"""


@needs_gpu
def test_first_use_may_be_in_a_capture() -> None:
    done = subprocess.run([sys.executable, "-c", CAPTURE], capture_output=True, text=True)
    assert done.stdout.strip() == "captured", done.stderr


@needs_gpu
def test_streams_are_torchs() -> None:
    tensor = torch.zeros(1, device="cuda")
    assert devices.stream_of(tensor.get_device()) == torch.cuda.current_stream().cuda_stream
    other = torch.cuda.Stream()
    with torch.cuda.stream(other):
        assert devices.stream_of(tensor.get_device()) == other.cuda_stream


@needs_gpu
def test_launch_errors_name_the_kernel() -> None:
    device = devices.open_device("cuda")
    name = next(name for name in device.kernel_names() if name.startswith("causal_mask"))
    with pytest.raises(devices.DriverError, match=rf"LaunchKernel failed: .*{name}"):
        device.launch(name, (1, 1 << 20, 1), 0, b"")  # more blocks than the second dimension has
    torch.cuda.synchronize()  # nothing ran, nothing is broken


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_tensors_of_another_device_than_the_current_one() -> None:
    from rocmforge_plugin import ops

    scores = torch.zeros(8, 8, device="cuda:1")
    ops.causal_mask(scores)
    assert torch.isinf(scores).sum().item() == 28
    assert torch.cuda.current_device() == 0
