# SPDX-License-Identifier: Apache-2.0
"""Bounds on what the hot kernels do to LDS and caches, executed whole; and the model of time over them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest
import torch

from amdgpu.traffic import STALLS, Memory, Traffic
from benchmarks.amd import counters, executed, model
from benchmarks.amd.cards import CARDS, Card
from benchmarks.amd.executed import Executed
from benchmarks.kernels import elementwise_cases, elementwise_peers
from benchmarks.kernels.attention_cases import Case
from rocmforge_build.code_object import Resources
from rocmforge_plugin.device import kernels_dir

from .conftest import TARGETS


def latents(kind: str) -> Callable[[], None]:
    """A write to the cache of latents of 33 tokens of GLM-4.7-Flash."""
    batch = elementwise_cases.LatentBatch(elementwise_cases.LATENT_MODELS[0], 33, "cpu")
    call = elementwise_peers.ours(kind)

    def run() -> None:
        call(batch)

    return run


CARD = {target: counters.card_of(target) for target in TARGETS}
CASES: dict[str, Callable[[], Callable[[], None]]] = {
    "decode": partial(executed.attend, Case("", (1000, 3000), 1, 32, 2)),
    "prefill": partial(executed.attend, Case("", (200, 200), 200, 16, 2)),
    "norm_rotary_kv_write": partial(executed.write, elementwise_cases.MODELS[1], 33, elementwise_cases.NORM),
    "kv_write": partial(executed.write, elementwise_cases.MODELS[1], 33, elementwise_cases.WRITE),
    "latent_kv_write": partial(latents, elementwise_cases.LATENT_WRITE),
    "rotary_latent_kv_write": partial(latents, elementwise_cases.LATENT_BOTH),
}
# Clocks of LDS, lines of loads and lines of stores, over the fewest, that the kernels are held to. CDNA's decode merges
# waves by pairs of words. Of 128-byte lines a matrix operand's loads touch halves (64 bytes of each of 16 rows); lanes
# of gfx11 hold whole rows.
LINES_OF_128 = {"decode": (1.15, 1.6, 2.0), "prefill": (1.01, 1.5, 2.1)}
BOUNDS = {
    "gfx90a": {"decode": (1.15, 1.01, 2.0), "prefill": (1.01, 1.01, 1.01)},
    "gfx942": LINES_OF_128,
    "gfx950": LINES_OF_128 | {"prefill": (1.01, 1.5, 4.1)},
    "gfx11": {"decode": (1.01, 4.7, 4.0), "prefill": (1.01, 3.6, 6.4)},
    "gfx12": {"decode": (1.01, 2.7, 8.0), "prefill": (1.01, 2.2, 8.0)},
}
# Of rows to rotate a lane takes two parts half a row apart, and of latents too, whose halves are 4.5 lines.
ELEMENTWISE = {
    "norm_rotary_kv_write": (1.01, 2.0, 2.0),
    "kv_write": (1.0, 1.01, 1.01),
    "latent_kv_write": (1.0, 1.2, 1.25),
    "rotary_latent_kv_write": (1.0, 1.7, 1.7),
}
COMBINE = (1.01, 1.2, 1.01)


@cache
def done(target: str, case: str) -> dict[str, Executed]:
    """What a case's kernels did on eight compute units, timed as on the target's card."""
    if not (kernels_dir() / target / "kernels.txt").exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    return executed.execute(CASES[case], target, 8, model.costs(CARD[target]))


def kernel(target: str, case: str, name: str) -> Executed:
    """The one whose name begins so."""
    found = [what for kernel, what in done(target, case).items() if kernel.startswith(name)]
    assert len(found) == 1, done(target, case).keys()
    return found[0]


def check(found: Executed, bounds: tuple[float, float, float]) -> None:
    """LDS clocks, lines of loads, lines of stores: never below the least, and within the bounds above it."""
    reached = counters.figures(found)
    for taken, least, bound in zip(reached[::2], reached[1::2], bounds, strict=True):
        assert least <= taken <= bound * least, (reached, bounds)


@pytest.mark.parametrize("case", ["decode", "prefill"])
@pytest.mark.parametrize("target", TARGETS)
def test_bounds_of_attention(target: str, case: str) -> None:
    bounds = BOUNDS.get(target) or BOUNDS[target[:5]]
    found = kernel(target, case, f"attention_{case}")
    check(found, bounds[case])
    assert found.traffic.total.least_lds_clocks > 0 and found.by_unit["matrix"] > 0


@pytest.mark.parametrize("target", TARGETS)
def test_bounds_of_the_others(target: str) -> None:
    for case, bounds in ELEMENTWISE.items():
        check(kernel(target, case, case), bounds)
    check(kernel(target, "decode", "attention_combine"), COMBINE)


@pytest.mark.parametrize("target", TARGETS)
def test_decode_reads_each_key_once(target: str) -> None:
    """The cache's bytes, queries, and little else; buffers begin at lines."""
    found = kernel(target, "decode", "attention_decode").traffic
    keys = 4000 * 2 * 2 * 128 * 2
    assert keys <= found.footprint[0] * found.line_bytes <= 1.05 * keys + (1 << 16)


def test_what_is_allocated_is_aligned() -> None:
    with executed.Aligned():
        tensors = [torch.ones(n) for n in (1, 100, 1000)] + [torch.zeros(7, 3).t(), torch.arange(5) * 2]
        view = tensors[2][3:]
    assert all(t.data_ptr() % executed.ALIGNMENT == 0 for t in tensors)
    assert view.data_ptr() == tensors[2].data_ptr() + 12 and tensors[3].stride() == (1, 3)
    assert tensors[4].tolist() == [0, 2, 4, 6, 8]


def made(
    instructions: dict[str, int], lines: int = 0, read: int = 0, lds: int = 0, clocks: tuple[int, ...] = (1000,)
) -> Executed:
    """A made-up kernel: `lines` touched, of which `read` are different ones."""
    memory = {0: Memory(lds, lds, lines, lines, 128 * lines)}
    stalls = dict.fromkeys(STALLS, 0)
    traffic = Traffic(memory, 128, (read, 0), np.array(clocks, np.uint64), stalls, ["global_load_dword"])
    return Executed(Counter(instructions), traffic)


MI300X = next(card for card in CARDS if card.name == "MI300X")
SIMPLE = Resources("gfx942", "k", 128, 0, 0, 0, 0, 0, 0, 256, 64)  # four workgroups of four waves a CU


@pytest.mark.parametrize(
    ("what", "bound", "microseconds"),
    [
        (made({"v_mfma_f32_16x16x16_bf16": 304 * 4 * 2100}), "matrix", 16),
        (made({"v_add_f32_e32": 304 * 4 * 2100}), "VALU", 4),
        (made({"v_add_f32_e32": 304 * 4 * 2100, "v_exp_f32_e32": 304 * 4 * 2100}), "VALU", 20),
        (made({"s_add_i32": 304 * 4 * 2100, "v_add_f32_e32": 1}), "issue", 4),
        (made({"ds_read_b128": 1}, lds=304 * 2100), "LDS", 1),
        (made({"global_load_dwordx4": 1}, lines=10**6, read=5300 * 1000 // 128), "memory", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_busiest_unit_is_the_lower_end(what: Executed, bound: str, microseconds: float) -> None:
    found = model.predict(MI300X, SIMPLE, what)
    assert found.bound == bound and found.low == pytest.approx(microseconds, rel=1e-3) and found.high > found.low


def test_the_upper_end_is_of_waves_by_themselves() -> None:
    """304 CUs have places for 1216 workgroups at once; one more comes after. Each line comes anew."""
    once = model.predict(MI300X, SIMPLE, made({}, lines=41406, read=41406, clocks=(2100,) * 1216))
    assert once.high == pytest.approx(2, rel=1e-3) and once.low == pytest.approx(1, rel=1e-3)
    assert model.predict(MI300X, SIMPLE, made({}, clocks=(2100,) * 1217)).high == pytest.approx(2)
    assert model.predict(MI300X, replace(SIMPLE, vgprs=512), made({}, clocks=(2100,) * 1216)).high == pytest.approx(4)
    again = model.predict(MI300X, SIMPLE, made({}, lines=2 * 41406, read=41406, clocks=(2100,)))
    assert again.low == once.low and again.high == pytest.approx(3, rel=1e-3)


def test_makespan_takes_the_place_that_is_free_first() -> None:
    assert model.makespan([3, 1, 1, 1], 2) == 3 and model.makespan([1, 1, 3], 2) == 4 and model.makespan([], 2) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_predictions_are_ordered_and_grow_with_the_work(target: str) -> None:
    card = replace(CARD[target], compute_units=8 if CARD[target].cdna else 16)
    assert card.units == 8

    def predicted(lens: tuple[int, ...]) -> model.Range:
        found = executed.execute(partial(executed.attend, Case("", lens, 1, 16, 2)), target, 8, model.costs(card))
        return counters.predicted(card, found)

    if not (kernels_dir() / target / "kernels.txt").exists():
        pytest.skip(f"no code for {target} is built here: python -m rocmforge_build --targets {target}")
    short, long = predicted((512,) * 4), predicted((2048,) * 4)
    assert 0 < short.low < short.high and 0 < long.low < long.high
    assert short.low < long.low and short.high < long.high


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_decode_is_bound_by_memory(card: Card) -> None:
    """On a whole card, with 4 query heads for each KV head: what it is known to be."""
    if not (kernels_dir() / card.target / "kernels.txt").exists():
        pytest.skip(f"no code for {card.target} is built here: python -m rocmforge_build --targets {card.target}")
    case = Case("", (1024,) * 8, 1, 32, 8)
    found = executed.execute(partial(executed.attend, case), card.target, card.units, model.costs(card))
    name = next(name for name in found if name.startswith("attention_decode"))
    predicted = model.predict(card, counters.resources(card.target)[name], found[name])
    assert predicted.bound == "memory"
    assert predicted.low == pytest.approx(case.bytes / card.gigabytes / 1000, rel=0.1)
