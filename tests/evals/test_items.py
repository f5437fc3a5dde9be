# SPDX-License-Identifier: Apache-2.0
"""The synthetic tasks: every answer can be found by a few lines that read the prompt."""

from __future__ import annotations

import random

import pytest

from rocmforge_plugin.evaluate import corpus, documents, items


def solve(name: str, prompt: str) -> str:
    """The answer, worked out from the prompt alone; for copy the whole payload."""
    body = prompt[2:]
    if name == "copy":
        return body[: body.index("=")] + "\n"
    if name == "sort":
        return "".join(sorted(c for c in body if c.isalpha())) + "\n"
    if name == "reverse":
        return "".join(c for c in reversed(body) if c.isalpha()) + "\n"
    key = prompt[prompt.rindex("?") + 1 : -1]
    facts = body[: body.index("?")]
    if name == "needle":
        at = facts.index(f"[{key}:") + len(key) + 2
        return facts[at : at + 5] + "\n"
    return [fact[len(key) :] for fact in facts.split(" ") if fact.startswith(key)][-1] + "\n"


@pytest.mark.parametrize("length", items.LENGTHS)
@pytest.mark.parametrize("name", items.TASKS)
def test_answers_follow_from_prompts(name: str, length: int) -> None:
    for seed in range(40):
        item = items.TASKS[name](random.Random(seed), length)
        assert len(item.prompt) <= length and item.text.isascii() and item.answer
        expected = solve(name, item.prompt)
        if name == "copy":
            begun = len(item.prompt) - item.prompt.index("=") - 1
            assert item.text[item.prompt.index("=") + 1 :] == expected[: begun + len(item.answer)]
            assert len(item.answer) <= 24
        else:
            assert item.answer == expected


@pytest.mark.parametrize("name", items.TASKS)
def test_long_prompts_fill_their_length_and_short_ones_fit_a_page(name: str) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        assert len(items.TASKS[name](rng, 2064).prompt) > 2048
        assert len(items.TASKS[name](rng, 16).prompt) <= 16


def test_needles_stand_at_every_depth() -> None:
    depths = [items.needle(random.Random(seed), 2064).depth for seed in range(200)]
    assert all(any(low <= depth < low + 0.2 for depth in depths) for low in (0.0, 0.2, 0.4, 0.6, 0.8))


def test_the_same_seed_gives_the_same_documents() -> None:
    for name in (*items.TASKS, "text"):
        assert documents.make(name, "short") == documents.make(name, "short")
        assert documents.make(name, "short", 1) != documents.make(name, "short", 2)
    assert documents.forced("short") == documents.forced("short")
    with pytest.raises(ValueError, match="known: tasks copy"):
        documents.make("nothing", "short")


def test_held_out_text_is_no_training_text() -> None:
    held, seen = corpus.documents(held_out=True), corpus.documents(held_out=False)
    assert len(held) > 20 and not set(held) & set(seen)
