# SPDX-License-Identifier: Apache-2.0
"""Charts as plain SVG text: no plotting library is needed to read or to make a report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, ROW, LEFT, RIGHT = 760, 22, 250, 90
INK, GRID, FIRST, SECOND, BAD = "#1f2933", "#d9dee4", "#7b8794", "#2f6fb0", "#c23b3b"


def _frame(height: int, title: str, body: list[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
    )
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="10" y="18" font-weight="600">{escape(title)}</text>',
            *body,
            "</svg>",
        ]
    )


def _key(labels: Sequence[tuple[str, str]]) -> list[str]:
    parts, x = [], LEFT
    for colour, label in labels:
        parts.append(
            f'<rect x="{x}" y="28" width="10" height="10" fill="{colour}"/>'
            f'<text x="{x + 14}" y="37">{escape(label)}</text>'
        )
        x += 24 + 7 * len(label)
    return parts


def magnitudes(title: str, rows: Sequence[tuple[str, float, float | None, bool]], limit: float | None = None) -> str:
    """Bars on a logarithmic scale. rows: (label, candidate's value, the reference's own or None, within the limit)."""
    values = [v for _, a, b, _ in rows for v in (a, b) if v and math.isfinite(v)] + ([limit] if limit else [])
    low = math.floor(math.log10(max(min(values, default=1e-6), 1e-9)))
    high = max(math.ceil(math.log10(max(values, default=1.0))), low + 1)
    span = WIDTH - LEFT - RIGHT

    def at(value: float) -> float:
        if not math.isfinite(value):
            return LEFT + span
        return LEFT + span * (math.log10(min(max(value, 10.0**low), 10.0**high)) - low) / (high - low)

    top, bottom = 48, 48 + ROW * len(rows)
    body = _key([(SECOND, "candidate"), (FIRST, "reference's own rounding"), (BAD, "over the limit")])
    for power in range(low, high + 1):
        body.append(
            f'<line x1="{at(10.0**power):.1f}" x2="{at(10.0**power):.1f}" y1="{top}" y2="{bottom}" '
            f'stroke="{GRID}"/><text x="{at(10.0**power):.1f}" y="{bottom + 15}" text-anchor="middle">1e{power}</text>'
        )
    for place, (label, value, own, good) in enumerate(rows):
        y = top + ROW * place
        body.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        body.append(
            f'<rect x="{LEFT}" y="{y + 4}" width="{max(at(value) - LEFT, 1):.1f}" height="7" '
            f'fill="{SECOND if good else BAD}"/>'
        )
        if own is not None:
            body.append(
                f'<rect x="{LEFT}" y="{y + 12}" width="{max(at(own) - LEFT, 1):.1f}" height="5" fill="{FIRST}"/>'
            )
        body.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 15}">{value:.1e}</text>')
    if limit:
        body.append(
            f'<line x1="{at(limit):.1f}" x2="{at(limit):.1f}" y1="{top}" y2="{bottom}" stroke="{BAD}" '
            f'stroke-dasharray="4 3"/>'
        )
    return _frame(bottom + 26, title, body)


def shares(title: str, rows: Sequence[tuple[str, float, float]]) -> str:
    """Pairs of bars from 0 to 1. rows: (label, reference, candidate)."""
    span, top = WIDTH - LEFT - RIGHT, 48
    bottom = top + ROW * len(rows)
    body = _key([(FIRST, "reference"), (SECOND, "candidate")])
    for part in range(0, 11, 2):
        x = LEFT + span * part / 10
        body.append(
            f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{GRID}"/>'
            f'<text x="{x}" y="{bottom + 15}" text-anchor="middle">{part / 10:.1f}</text>'
        )
    for place, (label, first, second) in enumerate(rows):
        y = top + ROW * place
        body.append(f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label)}</text>')
        for value, offset, colour in ((first, 4, FIRST), (second, 11, SECOND)):
            body.append(
                f'<rect x="{LEFT}" y="{y + offset}" width="{max(span * value, 1):.1f}" height="6" fill="{colour}"/>'
            )
        body.append(f'<text x="{WIDTH - RIGHT + 8}" y="{y + 15}">{first:.3f} / {second:.3f}</text>')
    return _frame(bottom + 26, title, body)


def spread(title: str, differences: Sequence[float], bins: int = 41) -> str:
    """Histogram of signed differences, counts on a logarithmic scale; what is not finite stands at the edge."""
    finite = [d for d in differences if math.isfinite(d)]
    edge = max((abs(d) for d in finite), default=0.0) or 1.0
    counts = [0] * bins
    for value in finite:
        counts[min(int((value + edge) / (2 * edge) * bins), bins - 1)] += 1
    tallest = math.log10(max([*counts, 1]) + 1)
    height, top, span = 130, 40, WIDTH - 80
    body = []
    for place, count in enumerate(counts):
        tall = height * math.log10(count + 1) / tallest if tallest else 0
        body.append(
            f'<rect x="{40 + span * place / bins:.1f}" y="{top + height - tall:.1f}" width="{span / bins - 1:.1f}" '
            f'height="{tall:.1f}" fill="{SECOND}"/>'
        )
    for at, value in ((0.0, -edge), (0.5, 0.0), (1.0, edge)):
        body.append(f'<text x="{40 + span * at:.0f}" y="{top + height + 16}" text-anchor="middle">{value:+.1e}</text>')
    return _frame(top + height + 26, title, body)
