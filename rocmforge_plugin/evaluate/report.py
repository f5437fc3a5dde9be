# SPDX-License-Identifier: Apache-2.0
"""The report: a page for someone who must decide whether to switch backends, and the same as JSON and text."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from rocmforge_plugin.evaluate import charts
from rocmforge_plugin.evaluate.compare import Comparison
from rocmforge_plugin.evaluate.records import Run
from rocmforge_plugin.evaluate.rule import ENOUGH, LIMITS, Judgement, stated

SAME, DIFFERENT, UNDECIDED = "SAME", "DIFFERENT", "UNDECIDED"


@dataclass
class Leg:
    """One dtype: both runs and the judgement on them."""

    reference: Run
    candidate: Run
    judgement: Judgement


def verdict(legs: list[Leg]) -> str:
    """Over all dtypes: one failed check is enough for DIFFERENT; one uncovered phase for UNDECIDED."""
    if any(leg.judgement.failures for leg in legs):
        return DIFFERENT
    return UNDECIDED if not legs or any(leg.judgement.undecided for leg in legs) else SAME


def number(value: float | None, form: str = ".2e") -> str:
    """A figure, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def summary(legs: list[Leg]) -> list[str]:
    """The verdict and its reasons, in plain lines."""
    found = verdict(legs)
    names = f"{legs[0].candidate.backend} against {legs[0].reference.backend}" if legs else "nothing was run"
    meaning = {
        SAME: "within rounding, the two give the same answers",
        DIFFERENT: "the candidate does not compute what the reference computes",
        UNDECIDED: "nothing failed, but not every phase was covered",
    }[found]
    lines = [f"{found}: {names}: {meaning}."]
    emulated = dict.fromkeys(run.about.get("emulation") for leg in legs for run in (leg.candidate, leg.reference))
    lines += [f"rocmforge's kernels: {said}." for said in emulated if said]
    for leg in legs:
        judged = leg.judgement
        lines.append(
            f"{judged.dtype}: {len(judged.checks) - len(judged.failures)} of {len(judged.checks)} checks held"
            f"{', ' + str(len(judged.undecided)) + ' phase(s) not covered' if judged.undecided else ''}."
        )
        lines += [f"  failed: {check.name}: {check.detail}" for check in judged.failures[:12]]
        if len(judged.failures) > 12:
            lines.append(f"  and {len(judged.failures) - 12} more, in the report")
        lines += [f"  not covered: {reason}" for reason in judged.undecided]
    return lines


def table(rows: list[Comparison], floored: bool) -> tuple[list[str], list[list[str]]]:
    """Header and cells of a comparison table."""
    header = [
        "",
        "items",
        "tokens",
        "right, ref.",
        "right, cand.",
        "McNemar p",
        "mean diff.",
        "largest",
        "bias [95 %]",
        "greedy agr.",
        "perplexity, ref.",
        "perplexity, cand.",
    ]
    if floored:
        header[8:8] = ["dist. from fp32", "floor"]
    cells = []
    for one in rows:
        judged = one.judged > 0
        scored = one.tokens > 0
        row = [
            one.name,
            str(one.items),
            str(one.tokens) if scored else "-",
            f"{one.right_reference}/{one.judged}" if judged else "-",
            f"{one.right_candidate}/{one.judged}" if judged else "-",
            f"{one.mcnemar:.2g}" if judged else "-",
            number(one.mean) if scored else "-",
            number(one.largest) if scored else "-",
            f"{one.bias:+.1e} [{one.low:+.1e}, {one.high:+.1e}]" if scored else "-",
            f"{one.agreement:.4f}",
            number(one.perplexity_reference, ".5f"),
            number(one.perplexity_candidate, ".5f"),
        ]
        if floored:
            row[8:8] = [number(one.error), number(one.floor)]
        cells.append(row)
    return header, cells


def text_table(header: list[str], cells: list[list[str]]) -> str:
    """Columns for a terminal."""
    widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *cells]
    ]
    return "\n".join(lines)


def as_text(legs: list[Leg]) -> str:
    """The short report for the terminal."""
    lines = []
    for leg in legs:
        floored = any(one.floor is not None for one in leg.judgement.kinds)
        lines += [
            f"\n{leg.judgement.dtype}, {leg.candidate.backend} against {leg.reference.backend}",
            text_table(*table(leg.judgement.kinds, floored)),
        ]
    return "\n".join([*lines, "", *summary(legs)])


def plain(value: Any) -> Any:
    """JSON without NaN or infinity, which strict readers refuse: they become strings."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def as_json(legs: list[Leg]) -> dict[str, Any]:
    """Everything but the per-token differences."""

    def rows(found: list[Comparison]) -> list[dict[str, Any]]:
        kept = [{**asdict(one), "mcnemar": one.mcnemar} for one in found]
        return [{key: value for key, value in one.items() if key != "differences"} for one in kept]

    made = []
    for leg in legs:
        judged = leg.judgement
        runs = {
            side: {
                "backend": run.backend,
                "scores": run.scores,
                "launches": run.launches,
                "about": {k: v for k, v in run.about.items() if k != "forced"},
            }
            for side, run in (("reference", leg.reference), ("candidate", leg.candidate))
        }
        made.append(
            {
                "dtype": judged.dtype,
                "same": judged.same,
                "checks": [asdict(check) for check in judged.checks],
                "undecided": judged.undecided,
                "limits": asdict(LIMITS[judged.dtype]),
                "kinds": rows(judged.kinds),
                "tasks": rows(judged.tasks),
                "lengths": rows(judged.lengths),
                **runs,
            }
        )
    report: dict[str, Any] = plain({"verdict": verdict(legs), "summary": summary(legs), "legs": made})
    return report


def as_html(legs: list[Leg]) -> str:
    """One self-contained page."""
    found = verdict(legs)
    colour = {SAME: "#1d7a46", DIFFERENT: "#b3261e", UNDECIDED: "#9a6700"}[found]
    lines = summary(legs)
    parts = [
        STYLE,
        f'<h1>Backend parity: <span style="color:{colour}">{found}</span></h1>',
        f"<p>{escape(lines[0])}</p>",
        "<ul>" + "".join(f"<li>{escape(line.strip())}</li>" for line in lines[1:]) + "</ul>",
    ]
    for leg in legs:
        parts += leg_html(leg)
    return "\n".join(
        ['<!doctype html><html lang="en"><meta charset="utf-8"><title>Backend parity</title>', *parts, "</html>"]
    )


STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 1180px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 12px; margin: .6em 0 1.4em }
td, th { padding: 3px 8px; text-align: right }
td:first-child, th:first-child { text-align: left } tr { border-bottom: 1px solid #d9dee4 } .bad { color: #b3261e }
h2 { margin-top: 2em; border-top: 2px solid #1f2933; padding-top: .5em }
code { font-size: 12px } svg { max-width: 100% }
</style>"""


def html_table(header: list[str], cells: list[list[str]]) -> str:
    """An HTML table."""
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    return "<table><tr>" + "".join(f"<th>{escape(name)}</th>" for name in header) + f"</tr>{rows}</table>"


def leg_html(leg: Leg) -> list[str]:
    """One dtype's part of the page."""
    judged, reference, candidate = leg.judgement, leg.reference, leg.candidate
    floored = any(one.floor is not None for one in judged.kinds)
    failed = {check.name for check in judged.failures}
    parts = [
        f"<h2>{judged.dtype}: {'same' if judged.same else 'not shown to be the same'}</h2>",
        (
            "<p>Prompts that are scored run prefill only; forced decoding makes both backends produce one and the same "
            "continuation token by token and compares what they thought of each token; generation is free.</p>"
        ),
        html_table(*table(judged.kinds, floored)),
    ]
    for title, rows in (
        ("Mean difference per token, by task (nats)", judged.tasks),
        ("Mean difference per token, by prompt length (nats)", judged.lengths),
    ):
        bars = [
            (one.name, one.mean, one.floor, not any(name.startswith(one.name + ":") for name in failed))
            for one in rows
            if one.tokens
        ]
        if bars:
            parts.append(charts.magnitudes(title, bars, LIMITS[judged.dtype].group))
    right = [
        (one.name, one.right_reference / one.judged, one.right_candidate / one.judged)
        for one in judged.tasks
        if one.judged
    ]
    if right:
        parts.append(charts.shares("Accuracy by task", right))
    parts += [
        charts.spread(f"Signed differences, {one.name} (nats; counts on a logarithmic scale)", one.differences)
        for one in judged.kinds
        if one.differences
    ]
    parts += [
        "<h3>By task</h3>",
        html_table(*table(judged.tasks, floored)),
        f"<h3>By prompt length</h3><p>Groups under {ENOUGH} tokens are shown, not judged.</p>",
        html_table(*table(judged.lengths, floored)),
        "<h3>The rule</h3>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in stated(judged.dtype, floored)) + "</ul>",
        "<h3>Every check</h3>",
        html_table(
            ["check", "held", "figures"],
            [[check.name, "yes" if check.passed else "NO", check.detail] for check in judged.checks],
        ),
        "<h3>Which kernels ran</h3>",
        html_table(["backend", "phase", "kernel", "launches"], launched(leg)),
    ]
    for side, run in (("Reference", reference), ("Candidate", candidate)):
        about = {k: v for k, v in run.about.items() if k != "forced"}
        parts.append(f"<h3>{side}</h3><code>{escape(json.dumps(about, default=str))}</code>")
    return parts


def launched(leg: Leg) -> list[list[str]]:
    """Rows of the launch table."""
    rows = []
    for run in (leg.reference, leg.candidate):
        for phase, counts in run.launches.items():
            rows += [[run.backend, phase, name, str(count)] for name, count in counts.items()] or [
                [run.backend, phase, "none of rocmforge's", "0"]
            ]
    return rows


def as_markdown(legs: list[Leg]) -> str:
    """Tables for a README or an issue."""
    lines = [f"**{line}**" if place == 0 else f"- {line.strip()}" for place, line in enumerate(summary(legs))]
    for leg in legs:
        floored = any(one.floor is not None for one in leg.judgement.kinds)
        for rows in (leg.judgement.kinds, leg.judgement.tasks, leg.judgement.lengths):
            header, cells = table(rows, floored)
            title = [leg.judgement.dtype, *header[1:]]
            lines += ["", "| " + " | ".join(title) + " |", "|" + "---|" * len(title)]
            lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def write(legs: list[Leg], folder: Path) -> list[Path]:
    """Write report.html, report.md and report.json to `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {
        "report.html": as_html(legs),
        "report.md": as_markdown(legs),
        "report.json": json.dumps(as_json(legs), indent=1, default=str),
    }
    for name, content in made.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in made]
