# SPDX-License-Identifier: Apache-2.0
"""Names of ALU instructions that newer targets spell in another way than the handlers, which have gfx9's names."""

ALIASES: dict[str, str] = {}
