# SPDX-License-Identifier: Apache-2.0
"""Seeded synthetic task items, used alike for training the small checkpoint and for evaluating it.

Standard library only. One character is one token under the byte-level tokenizer, so lengths here are token counts.
Every task hangs on attention over the whole context: nothing can be answered from the last few tokens alone.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

#: Prompt lengths in tokens: below one KV page of 16, up to more than 2k (129 pages of 16).
LENGTHS = (16, 64, 256, 512, 1024, 2064)

_SYMBOLS = string.ascii_letters + string.digits + "+-*/"


@dataclass(frozen=True)
class Item:
    """One task item.

    text: prompt and answer as one string (ASCII).
    spans: half-open ranges of `text` that follow from what stands before them; the last one is the answer.
    depth: where in the prompt the deciding fact stands, 0 (start) to 1 (end); -1 where the whole prompt decides.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    depth: float = -1.0

    @property
    def prompt(self) -> str:
        """Everything before the answer."""
        return self.text[: self.spans[-1][0]]

    @property
    def answer(self) -> str:
        """The answer, its closing newline included where it has one."""
        return self.text[self.spans[-1][0] : self.spans[-1][1]]


def _digits(rng: random.Random, count: int) -> str:
    return f"{rng.randrange(10**count):0{count}d}" if count > 0 else ""


def _queries(rng: random.Random, head: str, asked: list[tuple[str, str]], depth: float) -> Item:
    """Append `?key=value` per question; only the last answer is closed by a newline."""
    text, spans = head, []
    for position, (key, value) in enumerate(asked):
        text += f"?{key}="
        closing = "\n" if position == len(asked) - 1 else ""
        spans.append((len(text), len(text) + len(value) + len(closing)))
        text += value + closing
    return Item(text, tuple(spans), depth)


def copy(rng: random.Random, length: int, questions: int = 1) -> Item:
    """`C:payload=payload`: the answer is the next piece (at most 24 characters) of a copy already under way.

    The whole copy is a span before the answer, so scoring it as a continuation covers every page of the payload.
    """
    room = max(length - 3, 8)
    if length <= 64:
        payload = "".join(rng.choices(_SYMBOLS, k=max(4, (room * 2) // 3)))
        begun = rng.randint(0, max(0, room - len(payload)))
    else:
        payload = "".join(rng.choices(_SYMBOLS, k=int(room * rng.uniform(0.5, 0.8))))
        begun = min(room - len(payload), len(payload) - 1)
    head = f"C:{payload}="
    closed = payload + "\n"
    stop = min(begun + 24, len(closed))
    text = head + closed[:stop]
    first, answer = len(head), len(head) + begun
    spans = ((first, answer), (answer, len(text))) if begun else ((answer, len(text)),)
    return Item(text, spans)


def recall(rng: random.Random, length: int, questions: int = 1) -> Item:
    """`R:ab12 cd34 ...?cd=34`: two-letter keys, all different, each with a two-digit value."""
    pairs = max(1, min((length - 6) // 5, 600))
    keys = [
        a + b
        for a, b in (
            (string.ascii_lowercase[k // 26], string.ascii_lowercase[k % 26]) for k in rng.sample(range(676), pairs)
        )
    ]
    values = [_digits(rng, 2) for _ in keys]
    head = "R:" + " ".join(k + v for k, v in zip(keys, values, strict=True))
    places = [rng.randrange(pairs) for _ in range(questions)]
    depth = places[-1] / max(1, pairs - 1)
    return _queries(rng, head, [(keys[p], values[p]) for p in places], depth)


def needle(rng: random.Random, length: int, questions: int = 1, hay: str | None = None) -> Item:
    """`N:text [k:48213] text?k=48213`: named five-digit codes in a haystack of prose.

    hay: text to hide the codes in; without it, made-up words.
    """
    room = length - 2 - 3
    count = min(4, max(1, room // 64))
    names = rng.sample(string.ascii_uppercase, count)
    codes = [_digits(rng, 5) for _ in names]
    filler = room - 9 * count
    source = hay if hay is not None else words(rng, filler)
    source = source[:filler].replace("[", "(").replace("?", ".")
    cuts = sorted(rng.randint(0, len(source)) for _ in names)
    parts, last = [], 0
    for cut, name, code in zip(cuts, names, codes, strict=True):
        parts += [source[last:cut], f"[{name}:{code}]"]
        last = cut
    head = "N:" + "".join(parts) + source[last:]
    places = [rng.randrange(count) for _ in range(questions)]
    depth = cuts[places[-1]] / max(1, len(source))
    return _queries(rng, head, [(names[p], codes[p]) for p in places], depth)


def last_value(rng: random.Random, length: int, questions: int = 1) -> Item:
    """`V:a12 b07 a33 ...?a=33`: variables set again and again; the answer is the last value of the one asked for."""
    writes = max(2, (length - 5) // 4)
    names = rng.sample(string.ascii_lowercase, min(26, max(2, writes // 4)))
    # A few variables are set rarely, so that the last write can stand far back.
    weights = [rng.choice((1.0, 1.0, 0.05)) for _ in names]
    order = rng.choices(names, weights=weights, k=writes)
    values = [_digits(rng, 2) for _ in order]
    state = {name: (value, place) for place, (name, value) in enumerate(zip(order, values, strict=True))}
    head = "V:" + " ".join(n + v for n, v in zip(order, values, strict=True))
    asked = [rng.choice(list(state)) for _ in range(questions)]
    return _queries(rng, head, [(n, state[n][0]) for n in asked], state[asked[-1]][1] / max(1, writes - 1))


def reverse(rng: random.Random, length: int, questions: int = 1) -> Item:
    """`I:8301kqzb2277=bzqk`: a run of different letters somewhere among digits, to be written backwards."""
    room = length - 3
    count = min(rng.randint(4, 16), room)
    letters = "".join(rng.sample(string.ascii_letters, count))
    at = rng.randint(0, room - count)
    head = "I:" + _digits(rng, at) + letters + _digits(rng, room - count - at) + "="
    text = head + letters[::-1] + "\n"
    return Item(text, ((len(head), len(text)),), at / max(1, room - count))


def sort(rng: random.Random, length: int, questions: int = 1) -> Item:
    """`S:49k2a931c=ack`: different letters scattered among digits over the whole prompt, to be put in order."""
    room = length - 3
    count = min(rng.randint(4, 12), room)
    letters = rng.sample(string.ascii_lowercase, count)
    places = set(rng.sample(range(room), count))
    noise, queue = iter(_digits(rng, room)), iter(letters)
    body = "".join(next(queue) if place in places else next(noise) for place in range(room))
    head = f"S:{body}="
    text = head + "".join(sorted(letters)) + "\n"
    return Item(text, ((len(head), len(text)),))


def words(rng: random.Random, length: int) -> str:
    """`length` characters of made-up lower-case words."""
    text = ""
    while len(text) < length:
        text += "".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 9))) + rng.choice(
            (" ", " ", " ", ", ", ". ")
        )
    return text[:length]


TASKS: dict[str, Callable[..., Item]] = {
    "copy": copy,
    "recall": recall,
    "needle": needle,
    "last_value": last_value,
    "reverse": reverse,
    "sort": sort,
}
