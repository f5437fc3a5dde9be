# SPDX-License-Identifier: Apache-2.0
"""Evaluation documents from a seed: how many items of which length, and what is forced during decoding."""

from __future__ import annotations

import random
from typing import Any

from rocmforge_plugin.evaluate import corpus, items

SEED = 20
#: Items of one task per prompt length, by size of the evaluation; short prompts are cheap, so there are more of them.
COUNTS: dict[str, dict[int, int]] = {
    "smoke": {16: 2, 256: 1},
    "short": {16: 8, 64: 8, 256: 2, 512: 1, 1024: 1, 2064: 1},
    "long": {16: 16, 64: 16, 256: 12, 512: 6, 1024: 2, 2064: 1},
    "full": {16: 40, 64: 40, 256: 40, 512: 40, 1024: 24, 2064: 16},
}
#: Windows of text, as (characters, how many).
WINDOWS: dict[str, tuple[tuple[int, int], ...]] = {
    "smoke": ((96, 1), (512, 1), (1536, 1)),
    "short": ((96, 2), (512, 2), (1536, 1)),
    "long": ((96, 8), (512, 8), (2048, 8)),
    "full": ((96, 16), (512, 24), (2048, 40)),
}
#: Text forced token by token, as (prompt characters, how many); DECODED characters follow the prompt.
FORCED: dict[str, tuple[tuple[int, int], ...]] = {
    "smoke": ((8, 2), (250, 2), (2000, 1)),
    "short": ((8, 4), (250, 4), (1020, 2), (2000, 1)),
    "long": ((8, 6), (60, 6), (250, 8), (1020, 6), (2000, 6)),
    "full": ((8, 16), (60, 16), (250, 24), (1020, 16), (2000, 16)),
}
DECODED = {"smoke": 24, "short": 48, "long": 96, "full": 128}


def window(rng: random.Random, length: int) -> str:
    """`length` characters of library text that training never read."""
    documents = [text for text in corpus.documents(held_out=True) if len(text) > length]
    text = rng.choice(documents)
    start = rng.randint(0, len(text) - length)
    return text[start : start + length]


def make(name: str, size: str, seed: int = SEED) -> list[dict[str, Any]]:
    """Documents of task `name`: copy, recall, needle, last_value, reverse, sort or text.

    Raises ValueError for an unknown task or size.
    """
    if size not in COUNTS or (name != "text" and name not in items.TASKS):
        known = f"tasks {', '.join([*items.TASKS, 'text'])}; sizes {', '.join(COUNTS)}"
        raise ValueError(f"no task {name!r} of size {size!r}; known: {known}")
    made: list[dict[str, Any]] = []
    if name == "text":
        for length, count in WINDOWS[size]:
            rng = random.Random(f"{seed} text {length}")
            made += [{"name": name, "length": length, "text": window(rng, length)} for _ in range(count)]
        return made
    for length, count in COUNTS[size].items():
        rng = random.Random(f"{seed} {name} {length}")
        for _ in range(count):
            item = items.TASKS[name](rng, length)
            begin = item.spans[0][0] if name == "copy" else item.spans[-1][0]
            made.append(
                {
                    "name": name,
                    "length": length,
                    "depth": round(item.depth, 3),
                    "prompt": item.prompt,
                    "answer": item.answer,
                    "context": item.text[:begin],
                    "continuation": item.text[begin:],
                }
            )
    return made


def forced(size: str, seed: int = SEED) -> list[dict[str, Any]]:
    """Prompts with the continuation that both backends are made to decode: library text, and every task's answer."""
    made: list[dict[str, Any]] = []
    for length, count in FORCED[size]:
        rng = random.Random(f"{seed} forced {length}")
        for _ in range(count):
            text = window(rng, length + DECODED[size])
            made.append({"name": "text", "length": length, "prompt": text[:length], "continuation": text[length:]})
    for name in items.TASKS:
        for length in COUNTS[size]:
            rng = random.Random(f"{seed} forced {name} {length}")
            for _ in range(max(1, COUNTS[size][length] // 4)):
                item = items.TASKS[name](rng, length)
                made.append({"name": name, "length": length, "prompt": item.prompt, "continuation": item.answer})
    return made
