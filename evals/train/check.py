# SPDX-License-Identifier: Apache-2.0
"""Held-out accuracy per task and length, and bits per byte, of a model in training."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rocmforge_plugin.evaluate import corpus, items

from . import tokenizer


@torch.no_grad()
def correct(model: nn.Module, batch: list[items.Item]) -> tuple[float, float]:
    """Share of items whose whole answer is the greedy one, and share of answer characters that are.

    Every answer character's prediction sees the true characters before it; all of them right is the same as greedy
    generation giving exactly the answer.
    """
    device = next(model.parameters()).device
    width = max(len(item.text) for item in batch)
    ids = torch.full((len(batch), width), tokenizer.ENDOFTEXT, dtype=torch.long)
    for place, item in enumerate(batch):
        ids[place, : len(item.text)] = torch.tensor(tokenizer.encode(item.text))
    guess = model(ids.to(device)).argmax(-1).cpu()
    whole, right, total = 0, 0, 0
    for place, item in enumerate(batch):
        begin, end = item.spans[-1]
        good = int((guess[place, begin - 1 : end - 1] == ids[place, begin:end]).sum())
        whole += good == end - begin
        right, total = right + good, total + end - begin
    return whole / len(batch), right / total


@torch.no_grad()
def bits_per_byte(model: nn.Module, windows: int, length: int = 2048) -> float:
    """Mean bits per byte over seeded windows of text that training never read."""
    device = next(model.parameters()).device
    rng = random.Random(77)
    documents = [d for d in corpus.documents(held_out=True) if len(d) > length]
    total, count = 0.0, 0
    for _ in range(windows):
        document = rng.choice(documents)
        start = rng.randint(0, len(document) - length)
        ids = torch.tensor([[tokenizer.ENDOFTEXT, *tokenizer.encode(document[start : start + length])]], device=device)
        logits: Tensor = model(ids[:, :-1])
        total += float(F.cross_entropy(logits[0], ids[0, 1:], reduction="sum"))
        count += ids.shape[1] - 1
    return total / count / math.log(2)


def report(model: nn.Module, samples: int, longest: int = max(items.LENGTHS)) -> dict[str, dict[str, float]]:
    """Print and return exact accuracy per task and length; `text` holds bits per byte."""
    model.eval()
    found: dict[str, dict[str, float]] = {}
    for name, make in items.TASKS.items():
        cells, found[name] = [], {}
        for length in (n for n in items.LENGTHS if n <= longest):
            rng = random.Random(f"held-out {name} {length}")
            exact, letters = 0.0, 0.0
            chunk = max(1, min(samples, 65536 // length))
            for _ in range(samples // chunk):
                one, two = correct(model, [make(rng, length, 1) for _ in range(chunk)])
                exact, letters = exact + one, letters + two
            rounds = samples // chunk
            found[name][str(length)] = round(exact / rounds, 4)
            cells.append(f"{length}: {exact / rounds:.3f} ({letters / rounds:.3f})")
        print(f"  {name:10s} " + "  ".join(cells), flush=True)
    found["text"] = {"2048": round(bits_per_byte(model, max(4, samples // 4)), 4)}
    print(f"  text       {found['text']['2048']:.3f} bits per byte", flush=True)
    model.train()
    return found
