# SPDX-License-Identifier: Apache-2.0
"""What an architecture means for decoding."""

from __future__ import annotations

from dataclasses import dataclass

CDNA = ("gfx90a", "gfx942", "gfx950")


@dataclass(frozen=True)
class Target:
    """Attributes that instructions are decoded by.

    Attributes:
        name: as the compiler has it, ``gfx942``.
        generation: 9, 11 or 12.
        lanes: of a wave.
        fnuz: fp8 values have no infinity and no negative zero (CDNA 3), instead of OCP's formats.
    """

    name: str

    def __post_init__(self) -> None:
        if not (self.name in CDNA or self.name[:5] in ("gfx11", "gfx12")) or self.name == "gfx1250":
            raise ValueError(f"{self.name} cannot be executed: known are {', '.join(CDNA)}, gfx11xx and gfx120x")

    @property
    def generation(self) -> int:
        """9, 11 or 12."""
        return 9 if self.name in CDNA else int(self.name[3:5])

    @property
    def lanes(self) -> int:
        """Of a wave."""
        return 64 if self.generation == 9 else 32

    @property
    def fnuz(self) -> bool:
        """Whether fp8 is CDNA 3's."""
        return self.name == "gfx942"

    @property
    def shared_banks(self) -> int:
        """Banks of LDS, of 4 bytes each. AMD's documents say 32 or 64; those with 160 KiB are said to have 64."""
        return 64 if self.name == "gfx950" else 32

    @property
    def line_bytes(self) -> int:
        """Of a line of the cache that vector loads meet first: 64 bytes up to CDNA 2, 128 later and on RDNA."""
        return 64 if self.name == "gfx90a" else 128
