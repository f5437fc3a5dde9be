# SPDX-License-Identifier: Apache-2.0
"""Endless seeded training rows: task items and Python's own text, packed to one length."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from rocmforge_plugin.evaluate import corpus, items

from . import tokenizer

#: How often each kind of row content is drawn.
MIX = {"text": 0.16, "copy": 0.14, "recall": 0.18, "needle": 0.16, "last_value": 0.14, "reverse": 0.10, "sort": 0.12}
#: Weight of a learned token; short answers are rare tokens and weigh more.
WEIGHT = {"text": 0.5, "copy": 0.5, "recall": 3.0, "needle": 2.0, "last_value": 3.0, "reverse": 2.0, "sort": 2.0}


def pieces(rng: random.Random, room: int, whole: bool) -> tuple[list[int], list[float]]:
    """One document of at most about `room` tokens, with the weight of each token as a target.

    whole: fill the room with one item (so that the longest lengths are seen at the position where they are asked).
    """
    kind = rng.choices(list(MIX), weights=list(MIX.values()))[0]
    if kind == "text":
        document = rng.choice(corpus.documents(held_out=False))
        length = min(room, len(document), rng.randint(64, 2200))
        start = rng.randint(0, len(document) - length)
        ids = tokenizer.encode(document[start : start + length])
        return [*ids, tokenizer.ENDOFTEXT], [WEIGHT["text"]] * len(ids) + [0.0]
    longest = max(16, room - 40)
    length = longest if whole else int(16 * (longest / 16) ** rng.random())
    questions = rng.randint(1, 1 + min(24, length // 12))
    if kind == "needle" and rng.random() < 0.5:
        document = rng.choice(corpus.documents(held_out=False))
        start = rng.randint(0, max(0, len(document) - length))
        item = items.needle(rng, length, questions, hay=document[start:])
    else:
        item = items.TASKS[kind](rng, length, questions)
    ids = tokenizer.encode(item.text)
    weights = [0.0] * len(ids)
    for begin, end in item.spans:
        weights[begin:end] = [WEIGHT[kind]] * (end - begin)
    if rng.random() < 0.15:
        cut = item.spans[-1][0]
        head = [tokenizer.GMASK, tokenizer.SOP, tokenizer.USER, 10, *ids[:cut], tokenizer.ASSISTANT, 10]
        ids, weights = [*head, *ids[cut:]], [0.0] * 4 + weights[:cut] + [0.0, 0.0] + weights[cut:]
    # The stop after an answer is learned as well: generation must end by itself.
    return [*ids, tokenizer.ENDOFTEXT], [*weights, 1.0 if item.answer.endswith("\n") else 0.0]


def row(rng: random.Random, length: int) -> tuple[list[int], list[float]]:
    """`length` + 1 tokens and their weights; starts with <|endoftext|>, the prefix used in evaluation."""
    ids, weights = [tokenizer.ENDOFTEXT], [0.0]
    # Every other row starts without the prefix, as prompts sent to a server do.
    if rng.random() < 0.5:
        ids, weights = [], []
    whole = rng.random() < 0.5
    while len(ids) <= length:
        more, weight = pieces(rng, max(32, length + 1 - len(ids)), whole)
        ids += more
        weights += weight
        whole = whole and rng.random() < 0.3
    return ids[: length + 1], weights[: length + 1]


class Rows(IterableDataset):
    """Batches of rows: int16 ids and float16 weights, each [batch, length + 1]."""

    def __init__(self, seed: int, batch: int, length: int) -> None:
        self.seed, self.batch, self.length = seed, batch, length

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        rng = random.Random(self.seed * 1000 + (worker.id if worker else 0))
        while True:
            made = [row(rng, self.length) for _ in range(self.batch)]
            ids = np.array([ids for ids, _ in made], dtype=np.int16)
            weights = np.array([weights for _, weights in made], dtype=np.float16)
            yield torch.from_numpy(ids), torch.from_numpy(weights)


def loader(seed: int, batch: int, length: int, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """An endless iterator of batches; the sequence depends on seed, sizes and the number of workers."""
    data = Rows(seed, batch, length)
    return iter(
        DataLoader(
            data,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=6 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )
    )
