# SPDX-License-Identifier: Apache-2.0
"""What the compiler says of AMD kernels, read out of a code object: registers, memory, spills. No LLVM tool is needed.

The report is a MessagePack map in an ELF note (LLVM, "User Guide for AMDGPU Backend", code object metadata V3 to V5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_SHT_NOTE = 7
_NT_AMDGPU_METADATA = 32
_EM_AMDGPU = 224


@dataclass(frozen=True)
class Processor:
    """What the kernels of one architecture share on the hardware.

    Attributes:
        registers: VGPRs of a SIMD for one lane (accumulation registers included where they are of the same file).
        granule: VGPRs are handed out in multiples of this.
        most_waves: waves a SIMD can hold.
        simds: that share `lds` bytes; a CU's on CDNA, a WGP's on RDNA (the compiler's default mode there).
        group_lds: most LDS bytes of one workgroup.
        lds_granule: LDS is handed out in multiples of this.
    """

    registers: int
    granule: int
    most_waves: int
    simds: int
    lds: int
    group_lds: int
    lds_granule: int


_CDNA = Processor(512, 8, 8, 4, 64 << 10, 64 << 10, 512)
_CDNA4 = Processor(512, 8, 8, 4, 160 << 10, 160 << 10, 1280)
_RDNA = Processor(1536, 24, 16, 4, 128 << 10, 64 << 10, 1024)
PROCESSORS = {
    "gfx90a": _CDNA,
    "gfx942": _CDNA,
    "gfx950": _CDNA4,
    "gfx1100": _RDNA,
    "gfx1151": _RDNA,
    "gfx1200": _RDNA,
    "gfx1201": _RDNA,
}


@dataclass(frozen=True)
class Resources:
    """One kernel's. `vgprs` counts accumulation registers (`agprs` of them), sizes are bytes, `threads` a group's."""

    target: str
    kernel: str
    vgprs: int
    agprs: int
    sgprs: int
    lds: int
    scratch: int
    vgpr_spills: int
    sgpr_spills: int
    threads: int
    wave: int

    @property
    def occupancy(self) -> float:
        """Waves of this kernel that a SIMD holds, as registers, LDS and whole workgroups allow."""
        on = PROCESSORS[self.target]
        by_registers = min(on.most_waves, on.registers // (-(-max(self.vgprs, 1) // on.granule) * on.granule))
        group_waves = self.threads // self.wave
        groups = by_registers * on.simds // group_waves
        if self.lds:
            groups = min(groups, on.lds // (-(-self.lds // on.lds_granule) * on.lds_granule))
        return groups * group_waves / on.simds


def report(path: Path) -> dict[str, Any]:
    """What the compiler says of a code object: its target and, for each kernel, resources and arguments.

    Raises:
        ValueError: it is no AMD code object, or has no report.
    """
    data = path.read_bytes()
    if data[:4] != b"\x7fELF" or struct.unpack_from("<H", data, 18)[0] != _EM_AMDGPU:
        raise ValueError(f"{path} is not an AMD code object")
    found = _metadata(data)
    if found is None:
        raise ValueError(f"{path} has no report of its kernels' resources")
    return found


def read(path: Path) -> list[Resources]:
    """The kernels of a code object.

    Raises:
        ValueError: it is no AMD code object, or has no report.
    """
    said = report(path)
    target = said["amdhsa.target"].rsplit("-", 1)[-1].split(":")[0]
    return [
        Resources(
            target,
            kernel[".name"],
            kernel[".vgpr_count"],
            kernel.get(".agpr_count", 0),
            kernel[".sgpr_count"],
            kernel[".group_segment_fixed_size"],
            kernel[".private_segment_fixed_size"],
            kernel[".vgpr_spill_count"],
            kernel[".sgpr_spill_count"],
            kernel[".max_flat_workgroup_size"],
            kernel[".wavefront_size"],
        )
        for kernel in said["amdhsa.kernels"]
    ]


def constant(path: Path, symbol: str, size: int) -> bytes:
    """The bytes of a constant that a code object exports, such as a kernel's ``NAME_config``.

    Raises:
        ValueError: it exports no such symbol of that size.
    """
    data = path.read_bytes()
    address, bytes_long = _symbol(data, symbol) or (0, 0)
    if bytes_long == size:
        for _, _, base, offset, extent in _sections(data):
            if base <= address and address + size <= base + extent:
                return data[offset + address - base : offset + address - base + size]
    raise ValueError(f"{path} exports no {symbol} of {size} bytes")


def symbol(path: Path, name: str) -> tuple[int, int]:
    """Virtual address and size of what a code object exports under a name; ValueError if it does not."""
    found = _symbol(path.read_bytes(), name)
    if found is None:
        raise ValueError(f"{path} exports no {name}")
    return found


def _symbol(data: bytes, wanted: str) -> tuple[int, int] | None:
    sections = _sections(data)
    strings = next(start for name, _, _, start, _ in sections if name == b".dynstr")
    _, _, _, at, length = next(section for section in sections if section[0] == b".dynsym")
    for entry in range(at, at + length, 24):
        name, _, _, _, address, size = struct.unpack_from("<IBBHQQ", data, entry)
        start = strings + name
        if data[start : data.index(b"\0", start)] == wanted.encode():
            return address, size
    return None


class LaunchConfig(NamedTuple):
    """The struct of that name in ``kernels/launch_config.h``."""

    abi: int
    wave: int
    threads: int
    shared_bytes: int
    rows: int
    keys: int
    blocks_per_unit: int
    prefers_shared: int
    rounds: int
    row_elements: int
    early: int


def launch_config(path: Path, kernel: str) -> LaunchConfig:
    """A kernel's launch shape. Raises ValueError as `constant` does."""
    words = struct.Struct(f"<{len(LaunchConfig._fields)}i")
    return LaunchConfig(*words.unpack(constant(path, f"{kernel}_config", words.size)))


def compiler(path: Path) -> str:
    """What made a code object, as it says itself: ``clang version 22.1.0 ...``; empty if it does not say."""
    data = path.read_bytes()
    for name, _, _, start, size in _sections(data):
        if name == b".comment":
            texts = data[start : start + size].split(b"\0")
            return next((t.decode() for t in texts if b"clang" in t), "")
    return ""


def _sections(data: bytes) -> list[tuple[bytes, int, int, int, int]]:
    """(name, type, address, offset, size) of every section."""
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, names = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    strings = headers[names][4]
    return [(data[strings + h[0] : data.index(b"\0", strings + h[0])], h[1], h[3], h[4], h[5]) for h in headers]


def _metadata(data: bytes) -> dict[str, Any] | None:
    for _, kind, _, at, size in _sections(data):
        place = at
        while kind == _SHT_NOTE and place < at + size:
            name_size, body_size, note = struct.unpack_from("<III", data, place)
            body = place + 12 + (name_size + 3) // 4 * 4
            if note == _NT_AMDGPU_METADATA:
                report: dict[str, Any] = _unpack(data, body)[0]
                return report
            place = body + (body_size + 3) // 4 * 4
    return None


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    """(value, where the next one starts) of a MessagePack value, as far as the report uses the format."""
    tag = data[at]
    at += 1
    if tag <= 0x7F:
        return tag, at
    if tag >= 0xE0:
        return tag - 256, at
    if tag in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[tag], at
    if 0xCC <= tag <= 0xD3:  # integers of 1, 2, 4 and 8 bytes, without sign and with
        width = 1 << (tag & 3)
        return int.from_bytes(data[at : at + width], "big", signed=tag >= 0xD0), at + width
    if 0xA0 <= tag <= 0xBF or tag in (0xD9, 0xDA, 0xDB):
        size, at = _size(data, at, tag, 0xA0, 31, 0xD9, 1)
        return data[at : at + size].decode(), at + size
    if 0x90 <= tag <= 0x9F or tag in (0xDC, 0xDD):
        size, at = _size(data, at, tag, 0x90, 15, 0xDC, 2)
        return _items(data, at, size)
    if 0x80 <= tag <= 0x8F or tag in (0xDE, 0xDF):
        size, at = _size(data, at, tag, 0x80, 15, 0xDE, 2)
        flat, at = _items(data, at, 2 * size)
        return dict(zip(flat[::2], flat[1::2], strict=True)), at
    raise ValueError(f"MessagePack tag {tag:#x} is not one that the report uses")


def _size(data: bytes, at: int, tag: int, short: int, mask: int, long: int, width: int) -> tuple[int, int]:
    """(length, where the contents start): in the tag, or in `width` bytes or a multiple after a tag from `long` on."""
    if short <= tag <= short + mask:
        return tag & mask, at
    width <<= tag - long
    return int.from_bytes(data[at : at + width], "big"), at + width


def _items(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    out = []
    for _ in range(count):
        value, at = _unpack(data, at)
        out.append(value)
    return out, at
