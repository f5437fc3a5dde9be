# SPDX-License-Identifier: Apache-2.0
"""These tests assemble what they execute."""

from __future__ import annotations

import pytest

from amdgpu.disassembly import llvm_tool
from rocmforge_build import toolchain


@pytest.fixture(scope="session", autouse=True)
def llvm() -> None:
    """LLVM's tools are here; they may be missing only where AMD's compiler is as well."""
    try:
        for tool in ("llvm-mc", "llvm-objdump", "ld.lld"):
            llvm_tool(tool)
    except FileNotFoundError as error:
        if toolchain.find_amd(("gfx942",))[0] is not None:
            raise
        pytest.skip(str(error))
