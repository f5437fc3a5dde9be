# SPDX-License-Identifier: Apache-2.0
"""From disassembly to rows: what is not known stops with its name, and forms that two instructions share."""

from __future__ import annotations

import numpy as np
import pytest

from amdgpu import kernel as kernels
from amdgpu import single
from amdgpu.decode import operands
from amdgpu.decode.decoder import DecodeError
from amdgpu.decode.operands import Kind, Part
from amdgpu.decode.rows import Handler
from amdgpu.decode.target import Target
from amdgpu.disassembly import Line, parse
from amdgpu.library import Entry, library


def lines(*texts: str) -> list[Line]:
    words = (text.partition(" ") for text in texts)
    return [Line(4 * at, 4, 0, mnemonic, rest, None) for at, (mnemonic, _, rest) in enumerate(words)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("v_frobnicate_b32 v0, v1", "there is no handler for this instruction"),
        ("v_add_f32_e32 v0, v1, v2 wobble:3", "modifiers wobble are not known here"),
        ("v_add_f32_e32 v0, v1, src_shared_base", "operand 'src_shared_base' is not known here"),
        ("v_add_f32_e32 v0, v1", "3 operands are expected"),
        ("v_xor_b32_e64 v0, v1, v2 clamp", "clamp is not known of this instruction"),
        ("s_waitcnt oddcnt(0)", "counter oddcnt is not known here"),
        ("global_load_dword v0, v[1:2], off lds", "there is no handler for this instruction"),
        ("global_load_dword v0, v[1:2], off gds", "modifiers gds are not known here"),
        ("scratch_load_dword v0, v1, off", "there is no handler for this instruction"),
        ("s_swappc_b64 s[30:31], s[2:3]", "there is no handler for this instruction"),
    ],
)
def test_unknown_instructions_stop_with_kernel_line_and_mnemonic(text: str, why: str) -> None:
    with pytest.raises(DecodeError) as error:
        kernels.Kernel("some_kernel", "gfx942", lines("s_nop 0", text, "s_endpgm"), Entry(lanes=64))
    mnemonic = text.partition(" ")[0]
    assert str(error.value) == f"some_kernel+0x4: {mnemonic} cannot be executed on gfx942: {why}: {text}"


@pytest.mark.parametrize("name", ["gfx908", "gfx1030", "gfx1250", "sm_90"])
def test_unknown_targets(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot be executed: known are gfx90a, gfx942, gfx950, gfx11xx"):
        Target(name)


def test_a_branch_out_of_the_kernel() -> None:
    line = Line(0, 4, 0, "s_branch", "some", 0x1000)
    with pytest.raises(DecodeError, match=r"k\+0x0: s_branch some: goes out of the kernel"):
        kernels.Kernel("k", "gfx942", [line], Entry(lanes=64))


@pytest.mark.parametrize(
    ("text", "letter", "expected"),
    [
        ("v7", "f", (Kind.VECTOR, 1, Part.WHOLE, 0, 7, 0)),
        ("v[4:7]", "f", (Kind.VECTOR, 4, Part.WHOLE, 0, 4, 0)),
        ("a[2:3]", "f", (Kind.VECTOR, 2, Part.WHOLE, 0, 258, 0)),
        ("v7.h", "h", (Kind.VECTOR, 1, Part.HIGH, 0, 7, 0)),
        ("v7.l", "h", (Kind.VECTOR, 1, Part.LOW, 0, 7, 0)),
        ("-v7", "f", (Kind.VECTOR, 1, Part.WHOLE, operands.NEGATE, 7, 0)),
        ("-|s3|", "f", (Kind.SCALAR, 1, Part.WHOLE, operands.NEGATE | operands.ABSOLUTE, 3, 0)),
        ("|v[2:3]|", "d", (Kind.VECTOR, 2, Part.WHOLE, operands.ABSOLUTE, 2, 0)),
        ("sext(v3)", "i", (Kind.VECTOR, 1, Part.WHOLE, operands.SIGN_EXTEND, 3, 0)),
        ("vcc", "m", (Kind.SCALAR, 2, Part.WHOLE, 0, 106, 0)),
        ("exec_lo", "m", (Kind.SCALAR, 1, Part.WHOLE, 0, 126, 0)),
        ("m0", "u", (Kind.SCALAR, 1, Part.WHOLE, 0, 124, 0)),
        ("ttmp9", "u", (Kind.SCALAR, 1, Part.WHOLE, 0, 117, 0)),
        ("off", "u", (Kind.NONE, 0, Part.WHOLE, 0, 0, 0)),
        ("-1", "u", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0xFFFFFFFFFFFFFFFF)),
        ("0x7fffffff", "u", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0x7FFFFFFF)),
        ("-4.0", "f", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0xC0800000)),
        ("0.5", "h", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0x3800)),
        ("0.15915494", "h", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0x3118)),
        ("0.15915494", "f", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0x3E22F983)),
        ("2.0", "d", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0x4000000000000000)),
        ("0x40080000", "d", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0x4008000000000000)),
        ("0xfffffff0", "I", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0xFFFFFFFFFFFFFFF0)),
        ("0xfffffff0", "U", (Kind.CONSTANT, 0, Part.WHOLE, 0, 0, 0xFFFFFFF0)),
    ],
)
def test_operands(text: str, letter: str, expected: tuple) -> None:
    found = operands.parse(text, letter)
    assert (found.kind, found.count, found.part, found.flags, found.reg, found.constant) == expected


def test_operands_and_modifiers_are_told_apart() -> None:
    assert operands.split("v0, v[1:2], s[4:5] offset:16 sc0 nt") == (
        ["v0", "v[1:2]", "s[4:5]"],
        {"offset": "16", "sc0": "", "nt": ""},
    )
    assert operands.split("v0, v1, v2 op_sel:[0,1] op_sel_hi:[1,0]") == (
        ["v0", "v1", "v2"],
        {"op_sel": "[0,1]", "op_sel_hi": "[1,0]"},
    )
    assert operands.split("") == ([], {})


def test_the_library_and_the_decoder_agree_on_handlers() -> None:
    found = library().handlers
    assert found["v_add_f32"] == Handler(found["v_add_f32"].number, "f", "ff")
    assert len({handler.number for handler in found.values()}) == len(found) > 300


def test_labels_and_words_are_read() -> None:
    text = """
0000000000001900 <code>:
	s_cbranch_scc1 1                                           // 000000001900: BF850001 <code+0x8>
	v_mov_b32_e32 v0, 0x40490fdb                               // 000000001904: 7E0002FF 40490FDB
	s_endpgm                                                   // 00000000190C: BF810000
"""
    assert parse(text)["code"] == [
        Line(0x1900, 4, 0xBF850001, "s_cbranch_scc1", "1", 0x1908),
        Line(0x1904, 8, 0x7E0002FF, "v_mov_b32_e32", "v0, 0x40490fdb", None),
        Line(0x190C, 4, 0xBF810000, "s_endpgm", "", None),
    ]


@pytest.mark.parametrize(
    ("text", "v0", "v1"),
    [
        ("v_dual_mov_b32 v0, v2 :: v_dual_mov_b32 v1, v3", 2, 3),
        ("v_dual_mov_b32 v0, v2 :: v_dual_mov_b32 v1, v0", 2, 0),  # the second reads what the first writes
        ("v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v1, v3", 1, 3),
        ("v_dual_mov_b32 v0, v1 :: v_dual_mov_b32 v1, v0", 1, 0),  # both do
    ],
)
def test_pairs_read_before_they_write(text: str, v0: int, v1: int) -> None:
    state = single.State(32)
    state.v[:4] = np.arange(4)[:, None]
    single.run(text, "gfx1100", state)
    assert (state.v[0] == v0).all() and (state.v[1] == v1).all()


@pytest.mark.parametrize(
    ("text", "target", "expected"),
    [
        # gfx9 makes the other half of a 16-bit result zero, but not that of fma and mad; later targets keep it.
        ("v_add_u16 v0, v1, v2", "gfx942", 0x00000005),
        ("v_mad_u16 v0, v1, v2, v2", "gfx942", 0xAAAA0009),
        ("v_mad_u16 v0, v1, v2, v2 op_sel:[0,0,0,1]", "gfx942", 0x0009AAAA),
        ("v_add_nc_u16 v0.l, v1.l, v2.l", "gfx1100", 0xAAAA0005),
        ("v_add_nc_u16 v0.h, v1.l, v2.h", "gfx1201", 0x0012AAAA),
        ("v_or_b32_sdwa v0, v1, v2 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:WORD_0 src1_sel:WORD_1",
         "gfx942", 0x0012AAAA),
        ("v_or_b32_sdwa v0, v1, v2 dst_sel:BYTE_2 dst_unused:UNUSED_PAD src0_sel:WORD_0 src1_sel:BYTE_2",
         "gfx942", 0x00120000),
        ("v_add_u32_sdwa v0, sext(v3), v1 dst_sel:DWORD src0_sel:BYTE_1 src1_sel:DWORD", "gfx942", 1),
    ],
)  # fmt: skip
def test_parts_of_registers(text: str, target: str, expected: int) -> None:
    state = single.State(Target(target).lanes)
    state.v[0], state.v[1], state.v[2], state.v[3] = 0xAAAAAAAA, 2, 0x00100003, 0xFF00
    single.run(text, target, state)
    assert hex(state.v[0][0]) == hex(expected)
