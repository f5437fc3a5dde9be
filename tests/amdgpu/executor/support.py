# SPDX-License-Identifier: Apache-2.0
"""Kernels written in assembly, assembled and linked as a compiler's are."""

from __future__ import annotations

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from amdgpu.decode.target import Target
from amdgpu.disassembly import llvm_tool
from amdgpu.kernel import Kernel, load

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1200", "gfx1201")
ONE_EACH = ("gfx942", "gfx1100", "gfx1201")  # of each generation

_SOURCE = """
.amdgcn_target "amdgcn-amd-amdhsa--{target}"
.text
.globl code
.p2align 8
.type code,@function
code:
{body}
  s_endpgm
.size code, .-code
.rodata
.p2align 6
.amdhsa_kernel code
  .amdhsa_group_segment_fixed_size {lds}
  .amdhsa_kernarg_size 64
  .amdhsa_user_sgpr_kernarg_segment_ptr 1
  .amdhsa_system_sgpr_workgroup_id_y 1
  .amdhsa_system_sgpr_workgroup_id_z 1
  .amdhsa_next_free_vgpr 64
  .amdhsa_next_free_sgpr 96
  {special}
.end_amdhsa_kernel
.amdgpu_metadata
---
amdhsa.version: [1, 2]
amdhsa.target: amdgcn-amd-amdhsa--{target}
amdhsa.kernels:
  - .name: code
    .symbol: code.kd
    .kernarg_segment_size: 64
    .group_segment_fixed_size: {lds}
    .private_segment_fixed_size: 0
    .kernarg_segment_align: 8
    .wavefront_size: {lanes}
    .sgpr_count: 96
    .vgpr_count: 64
    .max_flat_workgroup_size: 1024
    .args:
      - {{.offset: 0, .size: 16, .value_kind: by_value}}
      - {{.offset: 16, .size: 4, .value_kind: hidden_block_count_x}}
      - {{.offset: 20, .size: 4, .value_kind: hidden_block_count_y}}
      - {{.offset: 24, .size: 4, .value_kind: hidden_block_count_z}}
      - {{.offset: 28, .size: 2, .value_kind: hidden_group_size_x}}
      - {{.offset: 30, .size: 2, .value_kind: hidden_group_size_y}}
      - {{.offset: 32, .size: 2, .value_kind: hidden_group_size_z}}
...
.end_amdgpu_metadata
"""


@cache
def kernel(body: str, target: str, lds: int = 0) -> Kernel:
    """A kernel `code` with an argument of 16 bytes, whose address is in s[0:1]; the workgroup's index is in s2 to s4.

    gfx12 has the index in ttmp registers.
    """
    lanes = Target(target).lanes
    special = ".amdhsa_accum_offset 64" if lanes == 64 else ".amdhsa_wavefront_size32 1"
    with tempfile.TemporaryDirectory() as folder:
        source, made, linked = (Path(folder, f"code.{kind}") for kind in ("s", "o", "co"))
        source.write_text(_SOURCE.format(target=target, body=body, lds=lds, lanes=lanes, special=special))
        features = ["-mattr=+real-true16"] if lanes == 32 else []
        command = [llvm_tool("llvm-mc"), "-triple=amdgcn-amd-amdhsa", f"-mcpu={target}", *features, "-filetype=obj"]
        subprocess.run([*command, str(source), "-o", str(made)], check=True)
        subprocess.run([llvm_tool("ld.lld"), "-shared", str(made), "-o", str(linked)], check=True)
        return load(linked, "code")


def pointer(array: np.ndarray) -> bytes:
    """The kernel's argument: an address, and 8 bytes of nothing."""
    return int(array.ctypes.data).to_bytes(8, "little") + bytes(8)


def load_argument(target: str) -> str:
    """Instructions that put the argument's address into s[8:9]."""
    if target.startswith("gfx12"):
        return "s_load_b64 s[8:9], s[0:1], 0x0\ns_wait_kmcnt 0x0\n"
    return "s_load_dwordx2 s[8:9], s[0:1], 0x0\ns_waitcnt lgkmcnt(0)\n"
