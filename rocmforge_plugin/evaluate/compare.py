# SPDX-License-Identifier: Apache-2.0
"""Two runs of the same items, compared: accuracies, per-token log-probabilities, greedy choices, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from rocmforge_plugin.evaluate.records import GENERATE, Record, Run

RESAMPLES = 1000


@dataclass
class Comparison:
    """A group of items under two runs; differences are candidate minus reference.

    mean, largest: of the absolute difference per token. bias: mean signed difference, low and high its 95 % interval,
    bootstrapped over items. floor: mean absolute difference of the reference in this dtype from the reference in
    float32 on the same tokens; error: the candidate's mean absolute difference from that same float32 reference.
    ratio_low: lower end of the bootstrapped 95 % interval of error / floor.
    agreement: share of scored tokens on which both agree whether it was the greedy one; of generated items, the share
    with the same text throughout. unusable: tokens whose difference is not finite; missing: items in one run only.
    """

    name: str
    items: int = 0
    tokens: int = 0
    judged: int = 0
    right_reference: int = 0
    right_candidate: int = 0
    lost: int = 0
    won: int = 0
    mean: float = 0.0
    largest: float = 0.0
    bias: float = 0.0
    low: float = 0.0
    high: float = 0.0
    floor: float | None = None
    error: float | None = None
    ratio_low: float | None = None
    agreement: float = 1.0
    same_prefix: float | None = None
    perplexity_reference: float | None = None
    perplexity_candidate: float | None = None
    unusable: int = 0
    missing: int = 0
    differences: list[float] = field(default_factory=list, repr=False)

    @property
    def mcnemar(self) -> float:
        """Exact two-sided p of McNemar's test on the items that only one run got right."""
        return mcnemar(self.lost, self.won)


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact binomial p for `lost` against `won` discordant pairs; 1.0 where there are none."""
    total = lost + won
    if total == 0:
        return 1.0
    tail: float = sum(math.comb(total, k) for k in range(min(lost, won) + 1)) / 2**total
    return min(1.0, 2 * tail)


def bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of sum(sums) / sum(counts), resampling items; both arrays are [items], counts not negative."""
    if len(sums) < 2:
        return -math.inf, math.inf
    weights = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), RESAMPLES)
    means = (weights @ sums) / np.maximum(weights @ counts, 1e-12)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def compare(
    name: str,
    pairs: Iterable[tuple[Record, Record]],
    exact: dict[tuple[str, str, str], Record] | None = None,
    missing: int = 0,
) -> Comparison:
    """Compare paired records (reference, candidate); `exact` holds the reference's float32 records by key."""
    found = Comparison(name, missing=missing)
    sums, counts, absolute, floors, errors = [], [], [], [], []
    reference_total = candidate_total = 0.0
    agreed = flagged = same = generated = 0
    prefixes = []
    for mine, theirs in pairs:
        found.items += 1
        if mine.correct is not None and theirs.correct is not None:
            found.judged += 1
            found.right_reference += mine.correct == 1
            found.right_candidate += theirs.correct == 1
            found.lost += mine.correct > theirs.correct
            found.won += mine.correct < theirs.correct
        if mine.kind == GENERATE:
            generated += 1
            same += mine.text == theirs.text
            prefixes.append(common_prefix(mine, theirs))
            continue
        if mine.tokens != theirs.tokens or len(mine.logprobs) != len(theirs.logprobs):
            found.missing += 1
            continue
        left, right = np.array(mine.logprobs), np.array(theirs.logprobs)
        delta = right - left
        finite = np.isfinite(delta)
        found.unusable += int((~finite).sum())
        agreed += sum(a == b for a, b in zip(mine.greedy, theirs.greedy, strict=True))
        flagged += len(mine.greedy)
        delta = delta[finite]
        absolute.append(np.abs(delta))
        found.differences += delta.tolist()
        sums.append(delta.sum())
        counts.append(len(delta))
        reference_total += left[finite].sum()
        candidate_total += right[finite].sum()
        truth = exact.get(mine.key) if exact else None
        if truth is not None and truth.tokens == mine.tokens:
            true = np.array(truth.logprobs)[finite]
            floors.append(np.abs(left[finite] - true))
            errors.append(np.abs(right[finite] - true))
    found.tokens = int(sum(counts))
    if found.tokens:
        every = np.concatenate(absolute)
        found.mean, found.largest = float(every.mean()), float(every.max())
        found.bias = float(sum(sums) / found.tokens)
        found.low, found.high = bootstrap(np.array(sums), np.array(counts))
        found.perplexity_reference = math.exp(-reference_total / found.tokens)
        found.perplexity_candidate = math.exp(-candidate_total / found.tokens)
    if floors:
        found.floor = float(np.concatenate(floors).mean())
        found.error = float(np.concatenate(errors).mean())
        own, mine_sums = (np.array([part.sum() for part in parts]) for parts in (floors, errors))
        found.ratio_low = bootstrap(mine_sums, own)[0]
    if flagged:
        found.agreement = agreed / flagged
    elif generated:
        found.agreement = same / generated
        found.same_prefix = float(np.mean(prefixes))
    return found


def common_prefix(mine: Record, theirs: Record) -> float:
    """Share of the generated characters before the first that differs (a server sends no tokens)."""
    longest = max(len(mine.text), len(theirs.text))
    if not longest:
        return 1.0
    pairs = zip(mine.text, theirs.text, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(mine.text), len(theirs.text))) / longest


def pages(record: Record) -> str:
    """Class of prompt length, so that a fault of long contexts stands alone."""
    for bound in (16, 128, 640, 1280):
        if record.length <= bound:
            return f"up to {bound} tokens"
    return "over 1280 tokens"


def groups(reference: Run, candidate: Run, exact: Run | None, by: Callable[[Record], str]) -> list[Comparison]:
    """One comparison per value of `by`, in order of first appearance."""
    theirs = {record.key: record for record in candidate.records}
    truth = {record.key: record for record in exact.records} if exact else None
    paired: dict[str, list[tuple[Record, Record]]] = {}
    missing: dict[str, int] = {}
    for record in reference.records:
        name = by(record)
        paired.setdefault(name, [])
        if record.key in theirs:
            paired[name].append((record, theirs[record.key]))
        else:
            missing[name] = missing.get(name, 0) + 1
    return [compare(name, pairs, truth, missing.get(name, 0)) for name, pairs in paired.items()]
