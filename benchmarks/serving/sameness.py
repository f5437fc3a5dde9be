# SPDX-License-Identifier: Apache-2.0
"""When two attention backends' answers are the same within rounding: pure functions over what engines returned.

Each backend generates freely, and the checkpoint's fp32 model (Transformers, no paging, no graphs) then scores that
very text. So every token of every backend has an error, the engine's log probability less the exact one, and no
comparison ends where two texts part. A backend is sound if its errors are of the size that the reference backends' are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

# Several hundred tokens make the means steady to about 10 %; a largest error is one token, in MoE models one expert
# chosen otherwise at a near tie.
MEAN_FACTOR, LARGEST_FACTOR, FLOOR = 1.5, 3.0, 1e-5
# bf16 moves these checkpoints' log probabilities by about 0.01; a reference further off than this is itself wrong.
SOUND_REFERENCE = 0.1
KINDS = ("prompt", "decode")


def spread(errors: Sequence[float]) -> dict[str, float]:
    """Count, mean and largest magnitude, and signed mean; anything not finite makes them infinite."""
    if not errors:
        return {"tokens": 0, "mean": 0.0, "largest": 0.0, "bias": 0.0}
    if not all(math.isfinite(e) for e in errors):
        return {"tokens": len(errors), "mean": math.inf, "largest": math.inf, "bias": math.inf}
    sizes = [abs(e) for e in errors]
    return {
        "tokens": len(errors),
        "mean": sum(sizes) / len(sizes),
        "largest": max(sizes),
        "bias": sum(errors) / len(errors),
    }


def errors_of(run: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Errors of one backend's run.

    Args:
        run: `sequences`, each with `logprobs`, `exact` (log probabilities of the generated tokens) and `best` (the
            exact model's highest at that place); `scores` and `exact_scores`, lists of a prompt's log probabilities.

    Returns:
        `spread`s: `prompt`, `decode`, and `regret`, by how much the exact model preferred another token to that chosen.
    """
    rows = run["sequences"]
    decode = [p - q for row in rows for p, q in zip(row["logprobs"], row["exact"], strict=True)]
    regret = [b - q for row in rows for b, q in zip(row["best"], row["exact"], strict=True)]
    prompt = [
        p - q
        for a, b in zip(run.get("scores", []), run.get("exact_scores", []), strict=True)
        for p, q in zip(a, b, strict=True)
    ]
    return {"prompt": spread(prompt), "decode": spread(decode), "regret": spread(regret)}


def verdict(ours: dict[str, dict[str, float]], references: Sequence[dict[str, dict[str, float]]]) -> list[str]:
    """What is wrong with `errors_of` one backend beside those of the references; empty if it is only rounding."""
    if not references:
        return ["there is no reference to compare with"]
    wrong = []
    for kind in KINDS:
        mean = max(one[kind]["mean"] for one in references)
        largest = max(one[kind]["largest"] for one in references)
        if not mean <= SOUND_REFERENCE:
            wrong.append(f"{kind}: a reference errs by {mean:.3g} itself")
        if ours[kind]["tokens"] < min(one[kind]["tokens"] for one in references):
            wrong.append(f"{kind}: {ours[kind]['tokens']:.0f} tokens are too few")
        if not ours[kind]["mean"] <= MEAN_FACTOR * mean + FLOOR:
            wrong.append(f"{kind}: mean error {ours[kind]['mean']:.3g}, the references' at most {mean:.3g}")
        if not ours[kind]["largest"] <= LARGEST_FACTOR * largest + FLOOR:
            wrong.append(f"{kind}: largest error {ours[kind]['largest']:.3g}, the references' at most {largest:.3g}")
    # Two log probabilities, each with such an error, decide between two tokens.
    allowed = (
        max(
            2 * max(one["decode"]["largest"] for one in references),
            LARGEST_FACTOR * max(one["regret"]["largest"] for one in references),
        )
        + FLOOR
    )
    if not ours["regret"]["largest"] <= allowed:
        wrong.append(
            f"a token was chosen that is {ours['regret']['largest']:.3g} nats below the best; "
            f"{allowed:.3g} would be rounding"
        )
    return wrong


def agreement(ours: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Greedy texts of two runs: tokens equal up to the first that differs, the two's log probabilities there (by the
    exact model, so of the same prefix), and the differences of log probabilities up to there.
    """
    equal = total = whole = 0
    gaps, apart = [0.0], []
    for a, b in zip(ours["sequences"], other["sequences"], strict=True):
        length = min(len(a["tokens"]), len(b["tokens"]))
        same = next((i for i in range(length) if a["tokens"][i] != b["tokens"][i]), length)
        equal, total, whole = equal + same, total + length, whole + (same == length)
        apart += [p - q for p, q in zip(a["logprobs"][:same], b["logprobs"][:same], strict=True)]
        if same < length:
            gaps.append(abs(a["exact"][same] - b["exact"][same]))
    return {
        "equal_tokens": equal,
        "tokens": total,
        "equal_texts": whole,
        "texts": len(ours["sequences"]),
        "largest_gap_at_parting": max(gaps),
        "mean_difference": spread(apart)["mean"],
        "largest_difference": spread(apart)["largest"],
    }


def ratio_lines(rows: dict[str, dict[str, float]], ours: str = "rocmforge") -> list[str]:
    """A line for each measure of throughput results {backend: {measure: value}}; a ratio above 1 favours `ours`.

    Measures named `..._ms` are times, the others rates.
    """
    lines = []
    for measure in rows.get(ours, {}):
        mine = rows[ours][measure]
        text = f"{measure:32}{ours} {mine:10.2f}"
        for name, row in rows.items():
            if name != ours and row.get(measure) and mine:
                ratio = row[measure] / mine if measure.endswith("_ms") else mine / row[measure]
                text += f"   {name} {row[measure]:10.2f} ({ratio:.2f}x)"
        lines.append(text)
    return lines
