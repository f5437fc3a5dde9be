#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare the code objects of two builds, kernel by kernel: which differ, and in what.

    python tools/compare_code.py BEFORE AFTER [--targets gfx942,sm_90] [--all]

BEFORE and AFTER are folders of built kernels (rocmforge_plugin/_kernels of two checkouts). A kernel is the same if its
machine code is, byte for byte, and its launch shape, where both builds' shapes have the same fields. Code refers to
other things by distance, so where bytes differ the disassembly without such distances decides (AMD; of NVIDIA's code
only the bytes are compared). For each kernel that differs the registers, LDS, spills and size of both are printed. Exit
status: 0 if all are the same, else 1.
"""

from __future__ import annotations

import argparse
import re
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rocmforge_build import code_object  # noqa: E402

_FUNCTION = 2  # of an ELF symbol's types
_DISTANCE = re.compile(r"(s_add(?:c|_co|_co_ci)?_(?:ci_)?u32 .*), (?:0x[0-9a-f]+|-?\d+)$|(s_getpc\S+ .*)")


@dataclass(frozen=True)
class Code:
    """One kernel's: its machine code, its launch shape, and what it takes of the machine, as text."""

    file: Path
    text: bytes
    config: bytes  # without the number of the launch ABI, which it begins with
    takes: str


def symbols(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, type, bytes) of every symbol of an ELF file that has bytes."""
    (at,) = struct.unpack_from("<Q", data, 40)
    size, count, _ = struct.unpack_from("<HHH", data, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * size) for i in range(count)]
    relocatable = struct.unpack_from("<H", data, 16)[0] == 1
    for section in sections:
        if section[1] != 2:  # a symbol table
            continue
        strings = sections[section[6]][4]
        for entry in range(section[4], section[4] + section[5], 24):
            name, info, _, owner, value, length = struct.unpack_from("<IBBHQQ", data, entry)
            if not length or not 0 < owner < count:
                continue
            _, _, _, address, offset, *_ = sections[owner]
            start = offset + value - (0 if relocatable or not address else address)
            text = data[strings + name : data.index(b"\0", strings + name)].decode()
            yield text, info & 15, data[start : start + length]


def kernels(folder: Path) -> dict[str, Code]:
    """The kernels of a target's folder, by name."""
    found: dict[str, Code] = {}
    index = [line.split() for line in (folder / "kernels.txt").read_text().splitlines()[1:]]
    for file in sorted({name for _, name in index}):
        path = folder / file
        data = path.read_bytes()
        all_symbols = {name: body for name, kind, body in symbols(data)}
        takes = {}
        if path.suffix == ".co":
            for one in code_object.read(path):
                takes[one.kernel] = (
                    f"{one.vgprs} VGPRs, {one.sgprs} SGPRs, {one.lds} bytes LDS, {one.scratch} "
                    f"scratch, {one.vgpr_spills + one.sgpr_spills} spills"
                )
        for name, owner in index:
            if owner == file:
                config = all_symbols[f"{name}_config"]
                found[name] = Code(path, all_symbols[name], config[4:], takes.get(name, ""))
    return found


def instructions(code: Code, name: str) -> list[str]:
    """The disassembly of an AMD kernel without addresses and distances to other things."""
    from amdgpu.disassembly import llvm_tool

    command = [
        llvm_tool("llvm-objdump"),
        "-d",
        "--no-show-raw-insn",
        "--mattr=+real-true16",
        f"--disassemble-symbols={name}",
        str(code.file),
    ]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line.split("//")[0].strip() for line in text.splitlines() if line.startswith("\t")]
    while lines and lines[-1].startswith(("s_nop", "s_code_end", ".long")):  # what fills the space to the next kernel
        lines.pop()
    return [_DISTANCE.sub(lambda m: m[1] or m[2], " ".join(line.split())) for line in lines]


def difference(before: Code, after: Code, name: str) -> str | None:
    """What differs between two builds of a kernel; None if nothing does."""
    found = []
    if len(before.config) == len(after.config) and before.config != after.config:
        found.append("launch shape")
    if before.text != after.text:
        if before.file.suffix != ".co":
            same = sum(a == b for a, b in zip(before.text, after.text, strict=False))
            found.append(f"{len(before.text)} -> {len(after.text)} bytes, {same} in place")
        else:
            one, other = instructions(before, name), instructions(after, name)
            if one != other:
                mnemonics = [Counter(line.split(" ")[0] for line in lines) for lines in (one, other)]
                moved = mnemonics[0] == mnemonics[1]
                changed = sum(((mnemonics[0] - mnemonics[1]) + (mnemonics[1] - mnemonics[0])).values())
                found.append(
                    f"{len(one)} -> {len(other)} instructions"
                    + (", the same in another order or other registers" if moved else f", {changed} others")
                )
    if before.takes != after.takes:
        found.append(f"{before.takes} -> {after.takes}")
    return "; ".join(found) or None


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--targets", help="comma-separated; default: the GPU targets that both have")
    parser.add_argument("--all", action="store_true", help="name the kernels that are the same too")
    given = parser.parse_args(arguments)
    both = {path.parent.name for path in given.before.glob("*/kernels.txt")}
    both &= {path.parent.name for path in given.after.glob("*/kernels.txt")}
    targets = given.targets.split(",") if given.targets else sorted(both - {"cpu"})
    total: Counter[str] = Counter()
    for target in targets:
        before, after = kernels(given.before / target), kernels(given.after / target)
        counts: Counter[str] = Counter()
        for name in sorted(before.keys() | after.keys()):
            if name not in before or name not in after:
                counts["only in one"] += 1
                print(f"{target} {name}: only {'after' if name in after else 'before'}")
                continue
            found = difference(before[name], after[name], name)
            counts["different" if found else "same"] += 1
            if found or given.all:
                print(f"{target} {name}: {found or 'same'}")
        print(f"{target}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
        total += counts
    print("all: " + ", ".join(f"{count} {what}" for what, count in sorted(total.items())))
    return 0 if set(total) == {"same"} else 1


if __name__ == "__main__":
    sys.exit(main())
