# SPDX-License-Identifier: Apache-2.0
"""The rule: when two backends are said to give the same answers. Its limits come from evals/CALIBRATION.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rocmforge_plugin.evaluate.compare import Comparison, groups, pages
from rocmforge_plugin.evaluate.records import DECODE, GENERATE, PREFILL, Run


@dataclass(frozen=True)
class Limits:
    """Limits of one dtype.

    mean: of the mean absolute difference per token, over a kind; group: over a task or a class of lengths.
    ratio, group_ratio: of the candidate's distance from the float32 reference to the reference's own distance; what
    must not be above it is the lower end of the ratio's interval.
    bias: largest mean signed difference whose interval excludes zero, as a share of `floor` where there is one, else
    in nats. agreement: smallest share of scored tokens, generated: of generated items, on which the choice agrees.
    """

    mean: float
    group: float
    bias: float
    agreement: float
    generated: float
    ratio: float | None = None
    group_ratio: float | None = None


#: float32 leaves only summation order; 16-bit types are judged by their distance from the float32 reference.
LIMITS: dict[str, Limits] = {
    "float32": Limits(mean=5e-5, group=2e-4, bias=2e-5, agreement=0.999, generated=0.98),
    "float16": Limits(mean=0.02, group=0.05, bias=0.4, agreement=0.99, generated=0.95, ratio=1.1, group_ratio=1.25),
    "bfloat16": Limits(mean=0.1, group=0.2, bias=0.4, agreement=0.97, generated=0.9, ratio=1.1, group_ratio=1.25),
}
#: Fewer tokens than this say nothing of a group's mean.
ENOUGH = 64
#: McNemar's p below which accuracies differ.
SIGNIFICANT = 0.01
#: Differences below this are rounding of the log-probabilities themselves (a floor near zero has no meaningful ratio).
NEGLIGIBLE = 1e-4


@dataclass
class Check:
    """One line of the verdict: what was checked, whether it held, the figures."""

    name: str
    passed: bool
    detail: str


@dataclass
class Judgement:
    """The comparison of two runs in one dtype, and the verdict on it."""

    dtype: str
    kinds: list[Comparison]
    tasks: list[Comparison]
    lengths: list[Comparison]
    checks: list[Check] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether every check held and nothing is missing."""
        return all(check.passed for check in self.checks) and not self.undecided

    @property
    def failures(self) -> list[Check]:
        """The checks that did not hold."""
        return [check for check in self.checks if not check.passed]


def judge(reference: Run, candidate: Run, exact: Run | None = None, launches: bool = True) -> Judgement:
    """Compare two runs of one dtype. exact: the reference in float32; launches: check who launched kernels."""
    dtype = reference.dtype
    limits = LIMITS[dtype]
    found = Judgement(
        dtype,
        groups(reference, candidate, exact, lambda record: record.kind),
        groups(reference, candidate, exact, lambda record: f"{record.kind}, {record.task}"),
        groups(reference, candidate, exact, lambda record: f"{record.kind}, {pages(record)}"),
    )
    kinds = {one.name: one for one in found.kinds}
    for kind, meaning in ((PREFILL, "scored prompts"), (DECODE, "forced decoding")):
        if kind not in kinds or not kinds[kind].tokens:
            found.undecided.append(f"{meaning}: no token was scored, so this phase is not covered")
    found.checks += list(whole(found.kinds))
    found.checks += list(distances(found.kinds, limits, "mean"))
    found.checks += list(distances([*found.tasks, *found.lengths], limits, "group"))
    found.checks += list(biases(found.kinds, limits))
    found.checks += list(choices(found.kinds, limits))
    found.checks.append(accuracies(found.kinds))
    if launches:
        found.checks += list(executed(reference, candidate))
    return found


def whole(kinds: list[Comparison]) -> Iterator[Check]:
    """Every item in both runs, every log-probability finite."""
    missing, unusable = sum(one.missing for one in kinds), sum(one.unusable for one in kinds)
    yield Check("every item answered by both", missing == 0, f"{missing} missing")
    yield Check("every log-probability finite", unusable == 0, f"{unusable} NaN or infinite")


def distances(found: list[Comparison], limits: Limits, level: str) -> Iterator[Check]:
    """Mean absolute difference per token, and distance from the float32 reference against the reference's own."""
    limit = limits.mean if level == "mean" else limits.group
    ratio = limits.ratio if level == "mean" else limits.group_ratio
    for one in found:
        if not one.tokens or (level == "group" and one.tokens < ENOUGH):
            continue
        yield Check(f"{one.name}: mean difference", one.mean <= limit, f"{one.mean:.2e} nats, limit {limit:.0e}")
        if ratio is not None and one.floor and one.error is not None and one.ratio_low is not None:
            kept = one.ratio_low <= ratio or one.error <= NEGLIGIBLE
            yield Check(
                f"{one.name}: distance from float32",
                kept,
                f"{one.error:.2e} where the reference's own is {one.floor:.2e}: {one.error / one.floor:.2f} times, "
                f"at least {one.ratio_low:.2f}, limit {ratio:g}",
            )


def biases(kinds: list[Comparison], limits: Limits) -> Iterator[Check]:
    """No systematic shift of log-probabilities in either direction."""
    for one in kinds:
        if not one.tokens:
            continue
        scale = one.floor if one.floor is not None else (1.0 if limits.ratio is None else limits.mean)
        bound = max(limits.bias * scale, 0.0)
        shifted = (one.low > 0 or one.high < 0) and abs(one.bias) > bound
        yield Check(
            f"{one.name}: bias",
            not shifted,
            f"{one.bias:+.1e} [{one.low:+.1e}, {one.high:+.1e}], limit {bound:.1e} where the interval excludes 0",
        )


def choices(kinds: list[Comparison], limits: Limits) -> Iterator[Check]:
    """Agreement of greedy choices."""
    for one in kinds:
        bound = limits.generated if one.name == GENERATE else limits.agreement
        yield Check(f"{one.name}: greedy agreement", one.agreement >= bound, f"{one.agreement:.4f}, limit {bound}")


def accuracies(kinds: list[Comparison]) -> Check:
    """McNemar's test over all items that have a right answer, both kinds together."""
    from rocmforge_plugin.evaluate.compare import mcnemar

    lost, won = sum(one.lost for one in kinds), sum(one.won for one in kinds)
    p, judged = mcnemar(lost, won), sum(one.judged for one in kinds)
    return Check(
        "accuracies", p >= SIGNIFICANT, f"{lost} lost, {won} won of {judged}; McNemar p {p:.3g}, limit {SIGNIFICANT}"
    )


def executed(reference: Run, candidate: Run) -> Iterator[Check]:
    """Launch counts prove which backend computed what."""
    if candidate.backend.upper() == "ROCMFORGE":
        for phase in ("tasks", "decode"):
            counts = candidate.launches.get(phase, {})
            attention = sum(n for name, n in counts.items() if "attention" in name)
            written = sum(n for name, n in counts.items() if "kv_write" in name)
            yield Check(
                f"rocmforge ran, {phase}",
                attention > 0 and written > 0,
                f"{attention} attention and {written} KV-write launches",
            )
    if reference.backend.upper() != "ROCMFORGE":
        yield Check("the reference ran without rocmforge", reference.launched == 0, f"{reference.launched} launches")


def stated(dtype: str, floored: bool) -> list[str]:
    """The rule in words, for the report."""
    limits = LIMITS[dtype]
    lines = [
        "both backends answer every item and no log-probability is NaN or infinite",
        (
            f"mean absolute difference per token at most {limits.mean:g} nats in scored prompts and in forced "
            f"decoding, {limits.group:g} in every task and class of lengths with {ENOUGH} tokens or more"
        ),
        "no bias: where the bootstrap interval of the mean signed difference excludes zero, it is at most "
        + (
            f"{limits.bias:g} of the floor"
            if floored and limits.ratio
            else f"{limits.bias:g} nats"
            if not limits.ratio
            else f"{limits.bias * limits.mean:g} nats"
        ),
        f"greedy agreement at least {limits.agreement:g} of scored tokens and {limits.generated:g} of generated items",
        f"McNemar p of the accuracies at least {SIGNIFICANT:g}",
        "launch counts: rocmforge's attention and KV-write kernels in the tasks and in decoding, none in the reference",
    ]
    if limits.ratio is not None and floored:
        lines.insert(
            2,
            f"distance from the float32 reference not significantly above {limits.ratio:g} times the "
            f"reference's own distance in this dtype (the floor), {limits.group_ratio:g} times in every task "
            "and class of lengths: the lower end of the ratio's bootstrapped 95 % interval is what counts",
        )
    return lines
