# SPDX-License-Identifier: Apache-2.0
"""What one run of one backend leaves behind, and the file it is kept in."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: How an item was computed: scored prompt (prefill only), free generation, forced continuation (decode).
PREFILL, GENERATE, DECODE = "prefill", "generate", "decode"


@dataclass
class Record:
    """One item of one task under one backend.

    kind: PREFILL, GENERATE or DECODE.
    task, item: what was asked; the same in every run.
    length: prompt length in tokens.
    tokens: token ids that `logprobs` and `greedy` speak of (scored, forced or generated).
    logprobs: log-probability of each token; greedy: whether it was the most likely one.
    text: what was generated. correct: the task's own 0/1 verdict, None where it has none.
    size: bytes scored, for bits per byte.
    """

    kind: str
    task: str
    item: str
    length: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    greedy: list[bool] = field(default_factory=list)
    text: str = ""
    correct: float | None = None
    size: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Identity across runs."""
        return self.kind, self.task, self.item


@dataclass
class Run:
    """All records of a backend in one dtype.

    launches: rocmforge kernel launches by phase and kernel name.
    scores: lm-eval's own aggregate per task and metric.
    about: versions, device, arguments.
    """

    backend: str
    dtype: str
    records: list[Record]
    launches: dict[str, dict[str, int]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def launched(self) -> int:
        """rocmforge kernel launches over all phases."""
        return sum(sum(counts.values()) for counts in self.launches.values())

    def save(self, path: Path) -> None:
        """Write gzipped JSON; NaN and infinities survive."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as out:
            json.dump(asdict(self), out)

    @classmethod
    def load(cls, path: Path) -> Run:
        """Read what `save` wrote."""
        with gzip.open(path, "rt", encoding="utf-8") as source:
            raw = json.load(source)
        raw["records"] = [Record(**record) for record in raw["records"]]
        return cls(**raw)
