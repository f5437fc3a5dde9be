# SPDX-License-Identifier: Apache-2.0
"""The CPU driver: every block once, whatever the threads do."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch  # noqa: F401  its threads are there to be shared

from rocmforge_build.toolchain import find_cxx
from rocmforge_plugin import _C
from tests import HANG


@pytest.fixture(params=["1", "2 own", "5 own", "2 torch", "5 torch"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Runs the test on that many threads, of our own or torch's."""
    number, *whose = request.param.split()
    before = _C.cpu_threads()
    _C.set_cpu_threads(int(number))
    _C.set_share_torch_threads(whose == ["torch"])
    yield int(number)
    _C.set_cpu_threads(before)
    _C.set_share_torch_threads(True)


@pytest.fixture
def device(toy_kernels: Path) -> _C.Device:
    return _C.Device("cpu", 0, str(toy_kernels))


def args(out: np.ndarray, grid: tuple[int, int, int]) -> bytes:
    return struct.pack("P3i", out.ctypes.data, out.size, grid[0], grid[1])


def test_device(device: _C.Device) -> None:
    assert (device.kind, device.target, device.synchronous) == ("cpu", "cpu", True)
    assert device.compute_units == _C.cpu_threads()
    assert device.kernel_names() == ["lone", "toy_count", "toy_hang"]
    assert device.kernel_config("toy_hang")["wave"] == 32


@pytest.mark.parametrize("grid", [(1, 1, 1), (2, 1, 1), (7, 3, 5), (1000, 1, 2), (1, 65, 1)])
def test_every_block_runs_once(device: _C.Device, threads: int, grid: tuple[int, int, int]) -> None:
    out = np.zeros(np.prod(grid), np.int32)
    for count in range(1, 20):
        device.launch("toy_count", grid, 0, args(out, grid))
        assert (out == count).all()


def test_many_callers_at_once(device: _C.Device, threads: int) -> None:
    grid, rounds = (40, 1, 1), 100
    outs = [np.zeros(40, np.int32) for _ in range(8)]
    errors: list[BaseException] = []

    def call(out: np.ndarray) -> None:
        try:
            for _ in range(rounds):
                device.launch("toy_count", grid, 0, args(out, grid))
        except BaseException as error:  # shown by the assertion below
            errors.append(error)

    _C.reset_launches()
    callers = [threading.Thread(target=call, args=(out,)) for out in outs]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not errors
    assert all((out == rounds).all() for out in outs)
    assert _C.launches() == {"toy_count": len(outs) * rounds}


@pytest.mark.parametrize("bad", [0, 17, 63])
def test_what_a_kernel_finds_wrong_is_raised(device: _C.Device, threads: int, bad: int) -> None:
    for _ in range(3):
        with pytest.raises(_C.DriverError, match="never reach") as raised:
            device.launch("toy_hang", (64, 1, 1), 0, struct.pack("P3i", 0, bad, 64, 1))
        assert raised.value.kernel == f"toy_hang, block {bad},0,0"
    device.launch("toy_hang", (64, 1, 1), 0, struct.pack("P3i", 0, 64, 64, 1))  # no bad block: the pool still works


def test_a_failed_launch_does_not_count(device: _C.Device) -> None:
    _C.reset_launches()
    with pytest.raises(_C.DriverError):
        device.launch("toy_hang", (2, 1, 1), 0, struct.pack("P3i", 0, 0, 2, 1))
    assert _C.launches() == {}


def test_an_empty_grid_is_no_launch(device: _C.Device) -> None:
    _C.reset_launches()
    device.launch("toy_count", (0, 1, 1), 0, b"")
    assert _C.launches() == {}


def tasks() -> set[str]:
    return set(os.listdir("/proc/self/task"))


def of_task(task: str, name: str) -> str:
    """A line of what the system says of one of this process's threads."""
    for line in Path(f"/proc/self/task/{task}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return line.split()[1]
    raise KeyError(name)


@pytest.mark.parametrize("threads", ["5 own"], indirect=True)
def test_idle_threads_sleep(device: _C.Device, threads: int) -> None:
    """All go to sleep, and no clock wakes them: until the next launch they are never scheduled again."""
    _C.set_cpu_threads(2)  # so that the next launch makes a pool of its own
    device.launch("toy_count", (64, 1, 1), 0, args(np.zeros(64, np.int32), (64, 1, 1)))
    before = tasks()
    _C.set_cpu_threads(threads)
    device.launch("toy_count", (64, 1, 1), 0, args(np.zeros(64, np.int32), (64, 1, 1)))
    workers = tasks() - before
    assert len(workers) == threads - 1

    def scheduled() -> list[int]:
        return [
            sum(int(of_task(worker, f"{kind}_ctxt_switches")) for kind in ("voluntary", "nonvoluntary"))
            for worker in sorted(workers)
        ]

    late = time.monotonic() + HANG
    while True:
        earlier = scheduled()
        time.sleep(0.2)
        if scheduled() == earlier and all(of_task(worker, "State") == "S" for worker in workers):
            break
        assert time.monotonic() < late, "a thread without work never sleeps, or wakes again and again"


def test_fork_after_use(device: _C.Device, threads: int) -> None:
    grid = (64, 1, 1)
    out = np.zeros(64, np.int32)
    device.launch("toy_count", grid, 0, args(out, grid))
    child = os.fork()
    if child == 0:
        mine = np.zeros(64, np.int32)
        for _ in range(10):
            device.launch("toy_count", grid, 0, args(mine, grid))
        os._exit(0 if (mine == 10).all() else 1)
    deadline = time.monotonic() + HANG
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked process hangs in its first launch")
        time.sleep(0.01)
    assert done[1] == 0
    device.launch("toy_count", grid, 0, args(out, grid))
    assert (out == 2).all()


RUN = """
import os, sys
if sys.argv[2] == "bind": os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from rocmforge_plugin import _C
import numpy, struct
device = _C.Device("cpu", 0, sys.argv[1])
if sys.argv[2] == "bind": _C.set_cpu_threads(2)
out = numpy.zeros(64, numpy.int32)
for _ in range(50): device.launch("toy_count", (64, 1, 1), 0, struct.pack("P3i", out.ctypes.data, 64, 64, 1))
mine = os.getpid()
masks = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task") if int(task) != mine]
print(_C.cpu_threads(), len(masks), max((len(mask) for mask in masks), default=0))
"""


def run(toy_kernels: Path, mode: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, str(toy_kernels), mode],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
    )


def test_threads_from_the_environment(toy_kernels: Path) -> None:
    done = run(toy_kernels, "free", ROCMFORGE_CPU_THREADS="3")
    assert done.stdout.split()[:2] == ["3", "2"], done.stderr


@pytest.mark.parametrize("value", ["none", "0", "-1", "99999"])
def test_bad_thread_count(toy_kernels: Path, value: str) -> None:
    done = run(toy_kernels, "free", ROCMFORGE_CPU_THREADS=value)
    assert done.returncode != 0
    assert f"ROCMFORGE_CPU_THREADS={value}: a number from 1 to 4096 is needed" in done.stderr


def test_a_bound_caller_does_not_bind_the_others(toy_kernels: Path) -> None:
    """OpenMP runtimes bind the thread that imports torch to one CPU; the workers must not be stuck there too."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    done = run(toy_kernels, "bind")
    threads, workers, widest = map(int, done.stdout.split())
    assert (threads, workers) == (2, 1) and widest > 1


SHARE = """
import os, struct, sys
import torch
torch.set_num_threads(3)
import numpy
from rocmforge_plugin import _C
def tasks(): return len(os.listdir("/proc/self/task"))
device = _C.Device("cpu", 0, sys.argv[1])
_C.set_cpu_threads(3)
_C.set_share_torch_threads(sys.argv[2] == "share")
torch.ones(1 << 20).exp()  # torch has started its threads by now
out = numpy.zeros(64, numpy.int32)
before = tasks()
for _ in range(20): device.launch("toy_count", (64, 1, 1), 0, struct.pack("P3i", out.ctypes.data, 64, 64, 1))
assert (out == 20).all()
print(tasks() - before)
"""


@pytest.mark.parametrize(("mode", "started"), [("share", "0"), ("own", "2")])
def test_torchs_threads_are_shared(toy_kernels: Path, mode: str, started: str) -> None:
    clean = {name: value for name, value in os.environ.items() if name != "ROCMFORGE_CPU_THREADS"}
    command = [sys.executable, "-c", SHARE, str(toy_kernels), mode]
    done = subprocess.run(command, capture_output=True, text=True, env=clean)
    assert done.stdout.strip() == started, done.stderr


def test_no_data_races(tmp_path: Path) -> None:
    """The threads under ThreadSanitizer: several callers, exceptions, pools of changing size."""
    runtime = Path(__file__).parents[2] / "csrc" / "runtime"
    program = tmp_path / "stress"
    sources = [runtime / name for name in ("parallel.cpp", "thread_pool.cpp", "openmp.cpp", "library.cpp")]
    built = subprocess.run(
        [
            find_cxx().path,
            "-std=c++20",
            "-O1",
            "-g",
            "-fsanitize=thread",
            "-I",
            str(runtime.parent),
            str(Path(__file__).with_name("thread_stress.cpp")),
            *map(str, sources),
            "-o",
            str(program),
        ],
        capture_output=True,
        text=True,
    )
    if "tsan" in built.stderr:
        pytest.skip("this compiler has no ThreadSanitizer: " + built.stderr.splitlines()[0])
    assert built.returncode == 0, built.stderr
    # Without address randomisation, where that is allowed: the sanitizer's memory map does not fit every kernel's.
    command = [str(program)]
    if subprocess.run(["setarch", "-R", "true"], capture_output=True).returncode == 0:
        command = ["setarch", "-R", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
