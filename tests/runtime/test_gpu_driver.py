# SPDX-License-Identifier: Apache-2.0
"""The HIP and CUDA drivers against a library that records calls and fails on demand."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rocmforge_build.code_object import LaunchConfig
from rocmforge_plugin import _C

from .fake_gpu import SOURCE, Fake

STREAM = 4096
ARGS = struct.pack("<4i", 1, 2, 3, 4)

# Each scenario's calls, in the library's own names.
HIP_CALLS = (
    "hipGetDevicePropertiesR0600",
    "hipDeviceGetAttribute",
    "hipGetDevice",
    "hipSetDevice",
    "hipModuleLoadData",
    "hipModuleGetFunction",
    "hipModuleLaunchKernel",
    "hipThreadExchangeStreamCaptureMode",
)
CUDA_CALLS = (
    "cuInit",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxRetain",
    "cuCtxGetCurrent",
    "cuCtxPushCurrent",
    "cuCtxPopCurrent",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuThreadExchangeStreamCaptureMode",
)

LAUNCH_CONFIG = Path(__file__).parents[2] / "kernels" / "launch_config.h"
HEADER = LAUNCH_CONFIG.read_text()
ABI = int(HEADER.split("kLaunchAbi = ")[1].split(";")[0])
SMALL = LaunchConfig(
    ABI,
    wave=64,
    threads=256,
    shared_bytes=0,
    rows=16,
    keys=32,
    blocks_per_unit=2,
    prefers_shared=0,
    rounds=3,
    row_elements=0,
    early=1,
)
CONFIGS = {
    "small": SMALL,
    "large": SMALL._replace(wave=32, threads=128, shared_bytes=100000, blocks_per_unit=1, prefers_shared=1, early=0),
    "old": SMALL._replace(abi=0),
    "numbered": LaunchConfig(ABI, *range(101, 100 + len(LaunchConfig._fields))),
}
CODE = f"struct Config {{ int {', '.join(LaunchConfig._fields)}; }};\n" + "".join(
    f'extern "C" {{ extern const Config {name}_config; '
    f"const Config {name}_config = {{{', '.join(map(str, fields))}}}; }}\n"
    for name, fields in CONFIGS.items()
)


@pytest.fixture(scope="module")
def library(compile_shared: Callable[..., Path]) -> Fake:
    return Fake(compile_shared(SOURCE, "libfakegpu.so"))


@pytest.fixture
def fake(library: Fake) -> Iterator[Fake]:
    library.reset()
    yield library
    assert library.modules() == 0, "modules were left loaded"
    assert library.retained() == 0, "contexts were left retained"


@pytest.fixture
def kernels(tmp_path: Path, compile_shared: Callable[..., Path]) -> Path:
    """A kernels folder with one code object for gfx942 and for sm_80 (any ELF file will do for the fake driver)."""
    source = tmp_path / "code.cpp"
    source.write_text(CODE)
    code = compile_shared(source, "code.co", "-nostdlib")
    for target, suffix in (("gfx942", ".co"), ("sm_80", ".cubin")):
        folder = tmp_path / "kernels" / target
        folder.mkdir(parents=True)
        (folder / f"unit{suffix}").write_bytes(code.read_bytes())
        rows = "".join(f"{name} unit{suffix}\n" for name in (*CONFIGS, "absent"))
        (folder / "kernels.txt").write_text(f"interface {_C.interface}\n{rows}")
    return tmp_path / "kernels"


def scenario(kind: str, fake: Fake, kernels: Path, call: str) -> int:
    """Opens device 1 while device 0 is current, loads two kernels of one unit and launches both.

    Returns how often it made `call`, its clean-up not counted: that may fail without anybody to tell.
    """
    device = _C.Device(kind, 1, str(kernels), fake.path)
    device.launch("large", (2, 3, 4), STREAM, ARGS)
    device.launch("small", (1, 1, 1), 0, ARGS)
    return fake.calls(call.encode())


@pytest.fixture(params=["hip", "cuda"])
def kind(request: pytest.FixtureRequest, fake: Fake) -> str:
    fake.capability(8, 6)
    return request.param


def test_what_the_driver_says(kind: str, fake: Fake, kernels: Path) -> None:
    device = _C.Device(kind, 0, str(kernels), fake.path)
    expected = {
        "hip": ("AMD Instinct MI300X", "gfx942:sramecc+:xnack-", 304, "gfx942"),
        "cuda": ("NVIDIA H200", "sm_86", 132, "sm_80"),
    }[kind]
    assert (device.name, device.arch, device.compute_units, device.target) == expected
    assert not device.synchronous
    assert fake.modules() == 0  # nothing is loaded before it is needed


def test_launch_arguments(kind: str, fake: Fake, kernels: Path) -> None:
    device = _C.Device(kind, 1, str(kernels), fake.path)
    device.launch("large", (2, 3, 4), STREAM, ARGS)
    where = {"hip": "1", "cuda": "context"}[kind]
    assert fake.launch().decode() == f"large grid 2 3 4 block 128 1 1 shared 100000 stream {STREAM} extra 0 on {where}"
    assert [fake.arg(4 * i) for i in range(4)] == [1, 2, 3, 4]
    assert device.kernel_config("small") == CONFIGS["small"]._asdict()


def test_every_field_of_a_config_has_its_name(kind: str, fake: Fake, kernels: Path) -> None:
    """In the header, in what reads code objects, and in what the host module tells."""
    config = _C.Device(kind, 0, str(kernels), fake.path).kernel_config("numbered")
    assert list(config.items()) == list(CONFIGS["numbered"]._asdict().items())
    assert re.findall(r"^  int32_t (\w+) = ", HEADER, re.MULTILINE) == list(LaunchConfig._fields)


def test_state_is_put_back(kind: str, fake: Fake, kernels: Path) -> None:
    device = _C.Device(kind, 1, str(kernels), fake.path)
    device.launch("small", (1, 1, 1), 0, ARGS)
    assert fake.modules() == 1
    assert (fake.current(), fake.contexts(), fake.capture_mode()) == (0, 0, 0)
    assert not fake.loaded_while_strict()
    del device
    assert (fake.modules(), fake.current(), fake.contexts(), fake.retained()) == (0, 0, 0, 0)


def test_code_is_loaded_once(kind: str, fake: Fake, kernels: Path) -> None:
    device = _C.Device(kind, 0, str(kernels), fake.path)
    for _ in range(3):
        device.launch("small", (1, 1, 1), 0, ARGS)
        device.launch("large", (1, 1, 1), 0, ARGS)
    prefix = {"hip": "hip", "cuda": "cu"}[kind]
    assert fake.calls(f"{prefix}ModuleLoadData".encode()) == 1
    assert fake.calls(f"{prefix}ModuleGetFunction".encode()) == 2


def test_large_shared_memory_is_asked_for(fake: Fake, kernels: Path) -> None:
    fake.capability(8, 0)
    device = _C.Device("cuda", 0, str(kernels), fake.path)
    device.kernel_config("small")
    assert (fake.shared_limit(), fake.carveout()) == (0, 0)
    device.kernel_config("large")
    assert (fake.shared_limit(), fake.carveout()) == (100000, 61)  # percent of 164 KiB, with the 1 KiB of a workgroup


@pytest.mark.parametrize("call", [*HIP_CALLS, *CUDA_CALLS])
def test_every_failing_call(call: str, fake: Fake, kernels: Path) -> None:
    kind = "hip" if call.startswith("hip") else "cuda"
    fake.capability(8, 0)
    made = scenario(kind, fake, kernels, call)
    assert made >= 1
    for at in range(1, made + 1):
        fake.reset()
        fake.capability(8, 0)
        fake.fail(call, at, 2)
        with pytest.raises(_C.DriverError) as raised:
            scenario(kind, fake, kernels, call)
        error = raised.value
        assert (error.call, error.code) == (call, 2)
        assert f"{call} failed: out of memory (error 2)" in str(error)
        if call.endswith(("LaunchKernel", "GetFunction", "FuncSetAttribute")):
            assert error.kernel.split(",")[0] in ("small", "large") and error.kernel in str(error)
        # The device lives in the traceback until here.
        error.__traceback__ = None
        del raised, error
        assert fake.modules() == 0 and fake.retained() == 0
        # The capture mode and the device are put back, unless putting them back is what failed.
        if "Exchange" not in call:
            assert fake.capture_mode() == 0
        if call not in ("hipSetDevice", "cuCtxPopCurrent"):
            assert fake.current() == 0 and fake.contexts() == 0


def test_failing_unload_is_survived(kind: str, fake: Fake, kernels: Path) -> None:
    call = {"hip": "hipModuleUnload", "cuda": "cuModuleUnload"}[kind]
    fake.fail(call, 1, 2)
    scenario(kind, fake, kernels, call)
    assert fake.calls(call.encode()) == 1
    fake.reset()


def test_a_failed_load_can_be_tried_again(kind: str, fake: Fake, kernels: Path) -> None:
    call = {"hip": "hipModuleLoadData", "cuda": "cuModuleLoadData"}[kind]
    device = _C.Device(kind, 0, str(kernels), fake.path)
    fake.fail(call, 1, 2)
    with pytest.raises(_C.DriverError):
        device.launch("small", (1, 1, 1), 0, ARGS)
    device.launch("small", (1, 1, 1), 0, ARGS)
    assert fake.modules() == 1


def test_an_error_without_text(kind: str, fake: Fake, kernels: Path) -> None:
    fake.fail({"hip": "hipDeviceGetAttribute", "cuda": "cuDeviceGetAttribute"}[kind], 1, 999)
    with pytest.raises(_C.DriverError, match=r"unknown error \(error 999\)"):
        _C.Device(kind, 0, str(kernels), fake.path)


def test_only_launches_that_succeeded_count(kind: str, fake: Fake, kernels: Path) -> None:
    _C.reset_launches()
    device = _C.Device(kind, 0, str(kernels), fake.path)
    device.launch("small", (1, 1, 1), 0, ARGS)
    fake.fail({"hip": "hipModuleLaunchKernel", "cuda": "cuLaunchKernelEx"}[kind], 1, 2)
    with pytest.raises(_C.DriverError):
        device.launch("small", (1, 1, 1), 0, ARGS)
    device.launch("small", (0, 1, 1), 0, ARGS)  # no work: not launched
    device.launch("large", (1, 1, 1), 0, ARGS)
    assert _C.launches() == {"small": 1, "large": 1}
    _C.reset_launches()
    assert _C.launches() == {}


def test_counts_add_up_over_devices(fake: Fake, kernels: Path) -> None:
    _C.reset_launches()
    devices = [_C.Device("hip", i, str(kernels), fake.path) for i in (0, 1)]
    for device in devices:
        device.launch("small", (1, 1, 1), 0, ARGS)
    assert _C.launches() == {"small": 2}


def test_no_such_device(kind: str, fake: Fake, kernels: Path) -> None:
    with pytest.raises(_C.DriverError, match=r"error 101"):
        _C.Device(kind, 7, str(kernels), fake.path)


def test_unlisted_arch_says_what_is_there_and_how_to_build(fake: Fake, kernels: Path) -> None:
    fake.arch(b"gfx1103")
    with pytest.raises(_C.DeviceError) as raised:
        _C.Device("hip", 0, str(kernels), fake.path)
    text = str(raised.value)
    for part in ("gfx1103", "AMD Instinct MI300X", "gfx942, sm_80", "gfx11-generic", "ROCMFORGE_TARGETS=gfx1103"):
        assert part in text


def test_other_cuda_generation_is_refused(fake: Fake, kernels: Path) -> None:
    fake.capability(10, 0)
    with pytest.raises(_C.DeviceError, match=r"sm_100.*Built there: gfx942, sm_80"):
        _C.Device("cuda", 0, str(kernels), fake.path)


def test_generic_code_is_the_fallback(fake: Fake, kernels: Path) -> None:
    (kernels / "gfx942").rename(kernels / "gfx11-generic")
    fake.arch(b"gfx1103")
    assert _C.Device("hip", 0, str(kernels), fake.path).target == "gfx11-generic"
    fake.arch(b"gfx1030")
    with pytest.raises(_C.DeviceError, match="gfx1030"):
        _C.Device("hip", 0, str(kernels), fake.path)


def test_own_code_comes_before_generic(fake: Fake, kernels: Path) -> None:
    (kernels / "gfx9-4-generic").mkdir()
    (kernels / "gfx9-4-generic" / "kernels.txt").write_text(f"interface {_C.interface}\n")
    assert _C.Device("hip", 0, str(kernels), fake.path).target == "gfx942"


def test_code_of_other_sources_is_refused(fake: Fake, kernels: Path) -> None:
    index = kernels / "gfx942" / "kernels.txt"
    index.write_text(index.read_text().replace(_C.interface, "0123456789abcdef"))
    with pytest.raises(_C.DeviceError, match="0123456789abcdef.*not built from the sources of this module"):
        _C.Device("hip", 0, str(kernels), fake.path)


def test_launch_abi_is_checked(fake: Fake, kernels: Path) -> None:
    with pytest.raises(_C.DeviceError, match="old .* has launch ABI 0"):
        _C.Device("hip", 0, str(kernels), fake.path).kernel_config("old")


def test_missing_kernels(fake: Fake, kernels: Path) -> None:
    device = _C.Device("hip", 0, str(kernels), fake.path)
    with pytest.raises(_C.DeviceError, match="kernel nothing is not built for gfx942"):
        device.launch("nothing", (1, 1, 1), 0, ARGS)
    with pytest.raises(_C.DeviceError, match="unit.co has no absent_config"):
        device.launch("absent", (1, 1, 1), 0, ARGS)


@pytest.mark.parametrize("damage", ["empty", "text", "head", "half"])
def test_damaged_code_objects(damage: str, fake: Fake, kernels: Path) -> None:
    path = kernels / "gfx942" / "unit.co"
    whole = path.read_bytes()
    damaged = {"empty": b"", "text": b"not an ELF file" * 10, "head": whole[:64], "half": whole[: len(whole) // 2]}
    path.write_bytes(damaged[damage])
    with pytest.raises(_C.DeviceError, match="unit.co is damaged"):
        _C.Device("hip", 0, str(kernels), fake.path).launch("small", (1, 1, 1), 0, ARGS)


def test_flipped_bytes_never_crash(fake: Fake, kernels: Path) -> None:
    path = kernels / "gfx942" / "unit.co"
    whole = path.read_bytes()
    section_headers = struct.unpack_from("<Q", whole, 40)[0]
    for offset in [*range(40, 64), *range(section_headers, len(whole), 3)]:
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :])
        device = _C.Device("hip", 0, str(kernels), fake.path)
        said = ""
        try:
            assert device.kernel_config("small").keys() == set(LaunchConfig._fields)
        except _C.DeviceError as error:
            said = str(error)
        assert not said or "unit.co" in said or "launch ABI" in said


def test_library_of_rocm_5_is_too_old(compile_shared: Callable[..., Path], kernels: Path) -> None:
    old = compile_shared(SOURCE, "libold.so", "-DROCM_5")
    with pytest.raises(_C.DeviceError, match="has no hipGetDevicePropertiesR0600"):
        _C.Device("hip", 0, str(kernels), str(old))


def test_missing_library_is_named(kernels: Path) -> None:
    with pytest.raises(_C.DeviceError, match="libnothing.so"):
        _C.Device("hip", 0, str(kernels), "/nowhere/libnothing.so")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gfx942:sramecc+:xnack-", ("gfx942", ["sramecc+", "xnack-"])),
        ("gfx90a:sramecc+:xnack-", ("gfx90a", ["sramecc+", "xnack-"])),
        ("gfx1100", ("gfx1100", [])),
        ("gfx1250:xnack+", ("gfx1250", ["xnack+"])),
    ],
)
def test_arch_names(name: str, expected: tuple[str, list[str]]) -> None:
    assert _C.parse_amd_arch(name) == expected


@pytest.mark.parametrize("name", ["", "gfx", "gfx9", "sm_90", "AMD Radeon", ":xnack+", "gfx94 2", "gfx9zz"])
def test_names_that_are_no_arch(name: str) -> None:
    with pytest.raises(_C.DeviceError, match="not a gfx name"):
        _C.parse_amd_arch(name)


def test_targets_of_processors() -> None:
    assert _C.amd_targets("gfx950") == ["gfx950", "gfx9-4-generic"]
    assert _C.amd_targets("gfx90a") == ["gfx90a"]
    assert _C.amd_targets("gfx1151") == ["gfx1151", "gfx11-generic"]
    assert _C.amd_targets("gfx1201") == ["gfx1201", "gfx12-generic"]
    assert _C.amd_targets("gfx1250") == ["gfx1250"]
    assert _C.cuda_targets(9, 0) == ["sm_90"]
    assert _C.cuda_targets(8, 9)[-1] == "sm_80"
