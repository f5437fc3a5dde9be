# SPDX-License-Identifier: Apache-2.0
"""From LLVM's disassembly to the rows that the library executes."""
