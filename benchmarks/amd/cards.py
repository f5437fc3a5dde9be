# SPDX-License-Identifier: Apache-2.0
"""Cards that the model of model.py speaks of: figures of AMD's public data sheets, and two that are assumed."""

from __future__ import annotations

from dataclasses import dataclass

from rocmforge_build.code_object import PROCESSORS


@dataclass(frozen=True)
class Card:
    """One GPU.

    Attributes:
        name: as it is sold.
        target: whose code it runs.
        compute_units: CUs.
        mhz: the highest engine clock of the data sheet.
        gigabytes: of memory bandwidth, 10^9 bytes a second, peak.
        source: of the figures.
    """

    name: str
    target: str
    compute_units: int
    mhz: int
    gigabytes: float
    source: str

    @property
    def cdna(self) -> bool:
        """CDNA, or else RDNA."""
        return self.target.startswith("gfx9")

    @property
    def units(self) -> int:
        """What HIP calls multiprocessors, and workgroups are placed on: CUs, on RDNA pairs of them."""
        return self.compute_units if self.cdna else self.compute_units // 2

    @property
    def simds(self) -> int:
        """Of the card."""
        return self.units * PROCESSORS[self.target].simds

    @property
    def memory_clocks(self) -> int:
        """From a load to its answer out of memory. Assumed, not published: 800 ns on CDNA, 500 ns on RDNA."""
        return round((800 if self.cdna else 500) * self.mhz / 1000)


CARDS = (
    Card("MI210", "gfx90a", 104, 1700, 1638.4, "AMD Instinct MI210 data sheet"),
    Card("MI250X, one GCD", "gfx90a", 110, 1700, 1638.4, "AMD Instinct MI250X data sheet, halved"),
    Card("MI300X", "gfx942", 304, 2100, 5300.0, "AMD Instinct MI300X data sheet"),
    Card("MI355X", "gfx950", 256, 2400, 8000.0, "AMD Instinct MI355X data sheet"),
    Card("RX 7900 XTX", "gfx1100", 96, 2500, 960.0, "AMD Radeon RX 7900 XTX product page (boost clock)"),
    Card("Strix Halo", "gfx1151", 40, 2900, 256.0, "AMD Ryzen AI Max+ 395 product page (Radeon 8060S, LPDDR5x-8000)"),
    Card("RX 9060 XT", "gfx1200", 32, 3130, 320.0, "AMD Radeon RX 9060 XT product page (boost clock)"),
    Card("RX 9070 XT", "gfx1201", 64, 2970, 640.0, "AMD Radeon RX 9070 XT product page (boost clock)"),
)
