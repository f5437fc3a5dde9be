# SPDX-License-Identifier: Apache-2.0
"""Statistics and the rule, on runs made up for the purpose."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path

import pytest

from rocmforge_plugin.evaluate import report, rule
from rocmforge_plugin.evaluate.compare import bootstrap, common_prefix, mcnemar
from rocmforge_plugin.evaluate.records import DECODE, GENERATE, PREFILL, Record, Run


def noisy(run: Run, sigma: float, seed: int, shift: float = 0.0, only: str | None = None) -> Run:
    """The run with Gaussian noise on its log-probabilities."""
    rng = random.Random(seed)
    made = copy.deepcopy(run)
    for record in made.records:
        if only in (None, record.kind):
            record.logprobs = [value + rng.gauss(shift, sigma) for value in record.logprobs]
    return made


@pytest.fixture
def exact() -> Run:
    """A float32 run: 40 scored, 40 forced, 60 generated items."""
    rng, records = random.Random(0), []
    for kind, task in ((PREFILL, "text"), (DECODE, "text (forced)")):
        for item in range(40):
            tokens = [rng.randrange(256) for _ in range(50)]
            records.append(
                Record(
                    kind,
                    task,
                    str(item),
                    rng.choice((10, 300, 2000)),
                    tokens,
                    [-rng.expovariate(1.0) for _ in tokens],
                    [True] * 50,
                    size=50,
                )
            )
    records += [Record(GENERATE, "copy", str(i), 16, [1, 2, 3], text="abc", correct=1.0) for i in range(60)]
    return Run("CPU_ATTN", "float32", records)


def served(run: Run, backend: str, dtype: str) -> Run:
    """The same run under another name, with the launches that name should have."""
    made = copy.deepcopy(run)
    made.backend, made.dtype = backend, dtype
    if backend == "rocmforge":
        counts = {"attention_prefill": 4, "kv_write_bf16": 4}
        made.launches = {"tasks": dict(counts), "decode": dict(counts)}
    return made


def test_mcnemar_is_the_exact_binomial() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(3, 3) == 1.0


def test_bootstrap_covers_the_mean_and_narrows() -> None:
    import numpy as np

    values = np.random.default_rng(1).normal(0.5, 1.0, 400)
    low, high = bootstrap(values, np.ones(400))
    assert low < 0.5 < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.2)
    assert bootstrap(values[:1], np.ones(1)) == (-math.inf, math.inf)


def test_common_prefix() -> None:
    one, two = Record(GENERATE, "t", "0", 1, text="abcd"), Record(GENERATE, "t", "0", 1, text="abxd")
    assert common_prefix(one, two) == 0.5 and common_prefix(one, one) == 1.0


def test_rounding_in_float32_passes(exact: Run) -> None:
    for seed in range(20):
        judged = rule.judge(exact, served(noisy(exact, 2e-6, seed), "rocmforge", "float32"))
        assert judged.same, [check.name for check in judged.failures]


@pytest.mark.parametrize("kind", [PREFILL, DECODE])
def test_a_small_fault_of_one_phase_fails_in_float32(exact: Run, kind: str) -> None:
    judged = rule.judge(exact, served(noisy(exact, 1e-4, 1, only=kind), "rocmforge", "float32"))
    assert judged.failures and all(check.name.startswith(kind) for check in judged.failures)


def test_sixteen_bit_types_are_judged_by_the_distance_from_float32(exact: Run) -> None:
    reference = served(noisy(exact, 2e-3, 1), "CPU_ATTN", "bfloat16")
    fine = served(noisy(exact, 2e-3, 2), "rocmforge", "bfloat16")
    worse = served(noisy(exact, 4e-3, 3), "rocmforge", "bfloat16")
    assert rule.judge(reference, fine, exact).same
    found = rule.judge(reference, worse, exact)
    assert any("distance from float32" in check.name for check in found.failures)
    assert rule.judge(reference, worse).same, "without the float32 reference only the fixed limits are left"


def test_a_shift_in_one_direction_fails_though_it_is_small(exact: Run) -> None:
    reference = served(noisy(exact, 2e-3, 1), "CPU_ATTN", "bfloat16")
    shifted = served(noisy(exact, 1.5e-3, 2, shift=8e-4), "rocmforge", "bfloat16")
    assert {check.name for check in rule.judge(reference, shifted, exact).failures} == {"prefill: bias", "decode: bias"}


def test_nan_missing_items_and_absent_launches_fail(exact: Run) -> None:
    broken = served(exact, "rocmforge", "float32")
    broken.records[0].logprobs[3] = math.nan
    assert "every log-probability finite" in [c.name for c in rule.judge(exact, broken).failures]
    fewer = served(exact, "rocmforge", "float32")
    fewer.records.pop()
    assert "every item answered by both" in [c.name for c in rule.judge(exact, fewer).failures]
    idle = served(exact, "rocmforge", "float32")
    idle.launches["decode"] = {}
    assert [c.name for c in rule.judge(exact, idle).failures] == ["rocmforge ran, decode"]
    impostor = copy.deepcopy(exact)
    impostor.launches = {"tasks": {"attention_prefill": 1}}
    assert "the reference ran without rocmforge" in [
        c.name for c in rule.judge(impostor, served(exact, "rocmforge", "float32")).failures
    ]


def test_without_decoding_nothing_is_decided(exact: Run) -> None:
    prompts = copy.deepcopy(exact)
    prompts.records = [record for record in prompts.records if record.kind != DECODE]
    judged = rule.judge(prompts, served(prompts, "rocmforge", "float32"))
    assert not judged.failures and not judged.same and "forced decoding" in judged.undecided[0]
    assert report.verdict([report.Leg(prompts, prompts, judged)]) == report.UNDECIDED


def test_lost_answers_fail_and_so_do_won_ones(exact: Run) -> None:
    for before, after in ((1.0, 0.0), (0.0, 1.0)):
        base, other = copy.deepcopy(exact), served(exact, "rocmforge", "float32")
        for one, two in list(zip(base.records, other.records, strict=True))[80:90]:
            one.correct, two.correct = before, after
        assert [c.name for c in rule.judge(base, other).failures] == ["accuracies"]


def test_reports_say_the_same_thing(exact: Run, tmp_path: Path) -> None:
    good = rule.judge(exact, served(noisy(exact, 1e-6, 1), "rocmforge", "float32"))
    bad = rule.judge(exact, served(noisy(exact, 1e-2, 1), "rocmforge", "float32"))
    candidate = served(exact, "rocmforge", "float32")
    for judged, word in ((good, report.SAME), (bad, report.DIFFERENT)):
        legs = [report.Leg(exact, candidate, judged)]
        page, listed, data = (path.read_text() for path in report.write(legs, tmp_path))
        assert word in page and word in listed and word in report.as_text(legs)
        assert json.loads(data)["verdict"] == word
        assert page.count("<svg") >= 4 and "attention_prefill" in page


def test_runs_survive_their_file(exact: Run, tmp_path: Path) -> None:
    exact.records[0].logprobs[0] = math.nan
    exact.save(tmp_path / "run.json.gz")
    back = Run.load(tmp_path / "run.json.gz")
    assert math.isnan(back.records[0].logprobs[0]) and back.records[1:] == exact.records[1:]


def test_any_task_gives_something_to_decode() -> None:
    from types import SimpleNamespace

    from rocmforge_plugin.evaluate.session import FORCED_TAIL, own_continuations

    generated = own_continuations(SimpleNamespace(outputs={(1, 2): [3, 4, 5], (6,): [7]}, prompts={}))
    assert [(one["prompt_ids"], one["ids"]) for one in generated] == [([1, 2], [3, 4, 5])]
    long = tuple(range(300))
    scored = own_continuations(SimpleNamespace(outputs={}, prompts={long: None, (1, 2): None}))
    assert len(scored) == 1 and scored[0]["prompt_ids"] + scored[0]["ids"] == list(long)
    assert len(scored[0]["ids"]) == FORCED_TAIL
