# SPDX-License-Identifier: Apache-2.0
"""Names of memory instructions that newer targets spell in another way than the handlers, which have gfx9's names."""

from __future__ import annotations

_WORDS = {"b32": "dword", "b64": "dwordx2", "b96": "dwordx3", "b128": "dwordx4"}
_SCALAR = {**_WORDS, "b256": "dwordx8", "b512": "dwordx16"}
_LOADS = {
    **_WORDS,
    "u8": "ubyte",
    "i8": "sbyte",
    "u16": "ushort",
    "i16": "sshort",
    "d16_u8": "ubyte_d16",
    "d16_i8": "sbyte_d16",
    "d16_b16": "short_d16",
    "d16_hi_u8": "ubyte_d16_hi",
    "d16_hi_i8": "sbyte_d16_hi",
    "d16_hi_b16": "short_d16_hi",
}
_STORES = {**_WORDS, "b8": "byte", "b16": "short", "d16_hi_b8": "byte_d16_hi", "d16_hi_b16": "short_d16_hi"}
_ATOMICS = {
    "swap_b": "swap",
    "cmpswap_b": "cmpswap",
    "add_u": "add",
    "sub_u": "sub",
    "min_i": "smin",
    "min_u": "umin",
    "max_i": "smax",
    "max_u": "umax",
    "and_b": "and",
    "or_b": "or",
    "xor_b": "xor",
    "inc_u": "inc",
    "dec_u": "dec",
}
_SHARED_LOADS = (
    *("b32", "b64", "b96", "b128", "u8", "i8", "u16", "i16"),
    *(f"{kind}_d16{half}" for kind in ("u8", "i8", "u16") for half in ("", "_hi")),
)
_SHARED_STORES = ("b8", "b16", "b32", "b64", "b96", "b128", "b8_d16_hi", "b16_d16_hi")


def _aliases() -> dict[str, str]:
    names: dict[str, str] = {}
    for space in ("global", "buffer"):
        names |= {f"{space}_load_{new}": f"{space}_load_{old}" for new, old in _LOADS.items()}
        names |= {f"{space}_store_{new}": f"{space}_store_{old}" for new, old in _STORES.items()}
        for new, old in _ATOMICS.items():
            names[f"{space}_atomic_{new}32"] = f"{space}_atomic_{old}"
            names[f"{space}_atomic_{new}64"] = f"{space}_atomic_{old}_x2"
        for which in ("min", "max"):
            names[f"{space}_atomic_{which}_num_f32"] = f"{space}_atomic_{which}_f32"
    for space in ("s", "s_buffer"):
        names |= {f"{space}_load_{new}": f"{space}_load_{old}" for new, old in _SCALAR.items()}
    names |= {f"ds_load_{kind}": f"ds_read_{kind}" for kind in _SHARED_LOADS}
    names |= {f"ds_store_{kind}": f"ds_write_{kind}" for kind in _SHARED_STORES}
    for bits in ("b32", "b64"):
        for new, old in (("load", "read"), ("store", "write")):
            names[f"ds_{new}_2addr_{bits}"] = f"ds_{old}2_{bits}"
            names[f"ds_{new}_2addr_stride64_{bits}"] = f"ds_{old}2st64_{bits}"
        names[f"ds_storexchg_rtn_{bits}"] = f"ds_wrxchg_rtn_{bits}"
    for which in ("min", "max"):
        for returns in ("", "_rtn"):
            for kind in ("f32", "f64"):
                names[f"ds_{which}_num{returns}_{kind}"] = f"ds_{which}{returns}_{kind}"
    return names


ALIASES = _aliases()
