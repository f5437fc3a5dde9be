# SPDX-License-Identifier: Apache-2.0
"""Bounds on what latent attention does to LDS and caches, executed whole; test_counters.py has those of the others."""

from __future__ import annotations

from functools import cache, partial

import pytest

from benchmarks.amd import executed
from benchmarks.amd.executed import Executed
from benchmarks.kernels.mla_cases import KEY, Case
from rocmforge_plugin.device import kernels_dir

from .conftest import TARGETS
from .test_counters import COMBINE, check

LENS = (1000, 3000)
# Heads and new tokens of each request: a tile of 16 rows, two, and whole row blocks of prefill.
CASES = {"decode1": (10, 1), "decode2": (20, 1), "prefill": (128, 1)}
# Clocks of LDS, lines of loads and lines of stores, over the fewest. Keys come in whole lines: what loads have above 1
# are queries, of which a matrix operand has 32 or 64 bytes of each row. Of partial results a wave of CDNA has 64 bytes
# of a row at once, lanes of RDNA have 8 or 16.
BOUNDS = {
    "gfx90a": {"decode1": (1.01, 1.01, 2.01), "decode2": (1.01, 1.01, 2.01), "prefill": (1.01, 1.01, 2.01)},
    "gfx942": {"decode1": (1.01, 1.1, 2.01), "decode2": (1.01, 1.1, 2.01), "prefill": (1.01, 1.2, 2.01)},
    "gfx950": {"decode1": (1.01, 1.1, 2.01), "decode2": (1.01, 1.2, 2.01), "prefill": (1.01, 1.2, 2.01)},
    "gfx11": {"decode1": (1.01, 1.3, 5.0), "decode2": (1.01, 1.6, 6.7), "prefill": (1.01, 1.3, 8.0)},
    "gfx12": {"decode1": (1.01, 1.2, 6.7), "decode2": (1.01, 1.3, 8.0), "prefill": (1.01, 1.2, 8.0)},
}


@cache
def done(target: str, case: str, lens: tuple[int, ...] = LENS) -> dict[str, Executed]:
    """What a case's kernels did on eight compute units."""
    if not (kernels_dir() / target / "kernels.txt").exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    heads, new = CASES[case]
    return executed.execute(partial(executed.attend_latent, Case("", lens, heads, new, 16)), target, 8)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("target", TARGETS)
def test_bounds(target: str, case: str) -> None:
    bounds = BOUNDS.get(target) or BOUNDS[target[:5]]
    found = done(target, case)
    attention = found[f"attention_{case}_bf16_d576v512_latent"]
    check(attention, bounds[case])
    assert attention.traffic.total.least_lds_clocks > 0 and attention.by_unit["matrix"] > 0
    check(found["attention_combine_bf16_d512"], COMBINE)


@pytest.mark.parametrize("case", ["decode1", "decode2"])
@pytest.mark.parametrize("target", TARGETS)
def test_decode_reads_each_key_once(target: str, case: str) -> None:
    """The latents' bytes, which are keys and values of all heads, and little else; no wave loads them again."""
    name = f"attention_{case}_bf16_d576v512_latent"
    keys = sum(LENS) * KEY * 2
    once, twice = (done(target, case, lens)[name].traffic for lens in (LENS, (2 * LENS[0], 2 * LENS[1])))
    assert keys <= once.footprint[0] * once.line_bytes <= 1.03 * keys
    lines = [traffic.of("global_load_dwordx4", "global_load_b128").lines for traffic in (once, twice)]
    assert 0.99 * keys <= (lines[1] - lines[0]) * once.line_bytes <= 1.03 * keys  # a share more has its queries
