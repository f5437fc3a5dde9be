# SPDX-License-Identifier: Apache-2.0
"""Cases of paged attention with a score function, a mask or heads that attention_cases.py has not."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from . import attention_cases
from .attention_cases import BLOCK, spread

SOFT_CAP = 50.0  # Gemma 2's
SHARP = 8.0  # how much larger queries are under a soft cap, so that it matters
KIND_INVARIANT = "batch-invariant"  # cases that are also run so


class Spans(NamedTuple):
    """The first and the last key that each query token of a request sees, int64 [tokens]."""

    first: torch.Tensor
    last: torch.Tensor


@dataclass(frozen=True)
class Case(attention_cases.Case):
    """Requests of query_len new tokens each, at the end of `lens` keys.

    Attributes:
        kind: which rows of the summary it belongs to.
        score: as a `Problem` has it; a soft cap is SOFT_CAP, slopes are ALiBi's.
        window: as `paged_attention` takes it.
        sinks: whether heads have them.
        causal: of the requests in turn.
        images: the first and the last position of each range that all requests have.
        clamped: whether a range reaches no further back than the window.
    """

    kind: str = ""
    score: str = "plain"
    window: int = 0
    sinks: bool = False
    causal: tuple[bool, ...] = (True,)
    images: tuple[tuple[int, int], ...] = ()
    clamped: bool = False

    @property
    def mask(self) -> str:
        """As a `Problem` has it."""
        return ("clamped_ranges" if self.clamped else "ranges") if self.images else "windowed"

    @property
    def scale(self) -> float:
        return self.head**-0.5

    def is_causal(self, request: int) -> bool:
        return self.causal[request % len(self.causal)]

    def spans(self, request: int) -> Spans:
        """What each token of a request sees: one interval of its keys, as no range has a gap to a token in it."""
        keys = self.lens[request]
        own = torch.arange(keys - self.query_len, keys)
        reach = self.window - 1 if self.window else keys
        first = (own - reach).clamp(min=0)
        last = own if self.is_causal(request) else (own + reach).clamp(max=keys - 1)
        for begin, end in self.images:
            inside = (own >= begin) & (own <= end)
            last = torch.where(inside, last.clamp(min=min(end, keys - 1)), last)
            if not self.clamped:
                first = torch.where(inside, first.clamp(max=begin), first)
        return Spans(first, last)

    @functools.cached_property
    def _pairs_and_keys(self) -> tuple[int, int]:
        """Pairs of a token and a key that it sees, and keys that any token sees."""
        alike: dict[tuple[int, bool], int] = {}
        for request, keys in enumerate(self.lens):
            alike.setdefault((keys, self.is_causal(request)), request)
        of = {}
        for what, request in alike.items():
            first, last = self.spans(request)
            of[what] = (int((last - first + 1).sum()), int(last.max() - first.min() + 1))
        found = [of[keys, self.is_causal(request)] for request, keys in enumerate(self.lens)]
        return sum(pairs for pairs, _ in found), sum(keys for _, keys in found)

    @property
    def flops(self) -> float:
        """Of both products, over the pairs that the mask keeps."""
        return 4.0 * self.heads * self.head * self._pairs_and_keys[0]

    @property
    def bytes(self) -> float:
        """Every key that is seen and its value read once, queries read and outputs written once."""
        of_keys = 2 * self.kv_heads * self._pairs_and_keys[1]
        return self.dtype.itemsize * self.head * (of_keys + 2 * self.heads * self.tokens)


def alibi_slopes(heads: int) -> torch.Tensor:
    """float32 [heads]: those of the power of two below, and between them every other of the next power's."""
    below = 1 << (heads.bit_length() - 1)

    def powers(count: int) -> list[float]:
        return [2.0 ** (-8 * (i + 1) / count) for i in range(count)]

    return torch.tensor(powers(below) + powers(2 * below)[::2][: heads - below])


class Inputs(attention_cases.Inputs):
    """One set of a case's tensors on a device."""

    def __init__(self, case: Case, seed: int, device: str = "cuda") -> None:
        super().__init__(case, seed, device)
        if case.score == "capped":
            self.query *= SHARP
        generator = torch.Generator(device=device).manual_seed(seed + 1000)
        # bfloat16 as gpt-oss has them, and FlashAttention-3 takes them.
        logits = torch.randn(case.heads, device=device, generator=generator) * 2
        self.sinks = logits.bfloat16() if case.sinks else None
        self.slopes = alibi_slopes(case.heads).to(device) if case.score in ("biased", "rooted") else None
        each = [case.is_causal(request) for request in range(len(case.lens))]
        self.causal: bool | torch.Tensor = each[0]
        if len(set(each)) > 1:
            self.causal = torch.tensor(each, dtype=torch.int32, device=device)
        self.ranges = None
        if case.images:
            ranges = torch.tensor(case.images, dtype=torch.int32, device=device)
            self.ranges = ranges.repeat(len(case.lens), 1, 1)


def sets_of(case: Case) -> int:
    """How many sets of inputs are larger together than the L2 cache."""
    return max(1, min(16, int(-(-attention_cases.L2_BYTES // case.bytes))))


def _rows(case: Case, inputs: Inputs) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
    """A few tokens of the first two requests and the last: number in the batch, own key, and what it sees, in fp64."""
    group = case.heads // case.kv_heads
    for r in sorted({0, min(1, len(case.lens) - 1), len(case.lens) - 1}):
        length = case.lens[r]
        table = inputs.block_table[r, : -(-length // BLOCK)].long()
        rows = inputs.pages[table].flatten(0, 1)[:length].double()
        spans = case.spans(r)
        inside = [i - (length - case.query_len) for begin, end in case.images for i in (begin, (begin + end) // 2)]
        for i in sorted({0, case.query_len // 3, case.query_len - 1, *(i for i in inside if 0 <= i < case.query_len)}):
            first, last = int(spans.first[i]), int(spans.last[i])
            seen = rows[first : last + 1].repeat_interleave(group, 1)
            distance = torch.arange(first, last + 1, device=rows.device) - (length - case.query_len + i)
            yield r * case.query_len + i, first, seen, distance


def sampled_error(case: Case, inputs: Inputs) -> float:
    """Norm of the error of `inputs.out` over the norm of the result, in fp64, at a few tokens."""
    wrong = norm = 0.0
    for token, _, seen, distance in _rows(case, inputs):
        k, v = seen.split(case.head, -1)
        scores = torch.einsum("hd,khd->hk", inputs.query[token].double(), k) * case.scale
        if case.score == "capped":
            scores = SOFT_CAP * (scores / SOFT_CAP).tanh()
        if inputs.slopes is not None:
            past = -(-distance).clamp(min=0).double().sqrt() if case.score == "rooted" else distance.double()
            scores = scores + inputs.slopes.double()[:, None] * past
        sums = scores.logsumexp(-1)
        if inputs.sinks is not None:
            sums = torch.logaddexp(sums, inputs.sinks.double())
        expected = torch.einsum("hk,khd->hd", (scores - sums[:, None]).exp(), v)
        wrong += (inputs.out[token].double() - expected).norm().item() ** 2
        norm += expected.norm().item() ** 2
    return (wrong / norm) ** 0.5


GEMMA = tuple((at, at + 255) for at in (100, 900))  # two images of 256 tokens, as Gemma 3 has them
CASES = (
    # Gemma 2: 32/16 heads of 128 (27b) and 16/8 of 256 (9b); every other layer has a window of 4096.
    Case("prefill 4x2k 32/16", (2048,) * 4, 2048, 32, 16, kind="soft cap", score="capped"),
    Case("prefill 1x8k 32/16, window 4096", (8192,), 8192, 32, 16, kind="soft cap", score="capped", window=4096),
    Case("decode b32 ctx4k 32/16", (4096,) * 32, 1, 32, 16, kind="soft cap", score="capped"),
    Case("prefill 4x2k 16/8x256", (2048,) * 4, 2048, 16, 8, 256, kind="soft cap", score="capped"),
    Case("decode b32 ctx4k 16/8x256", (4096,) * 32, 1, 16, 8, 256, kind="soft cap", score="capped"),
    # Bloom-7b and MPT-7b: 32/32 heads of 128; Falcon-RW-1b: 32/32 of 64. The root is Step-1's.
    Case("prefill 4x2k 32/32", (2048,) * 4, 2048, 32, 32, kind="ALiBi", score="biased"),
    Case("decode b32 ctx2k 32/32", (2048,) * 32, 1, 32, 32, kind="ALiBi", score="biased"),
    Case("prefill 4x2k 32/32x64", (2048,) * 4, 2048, 32, 32, 64, kind="ALiBi", score="biased"),
    Case("decode b32 ctx2k 32/32x64", (2048,) * 32, 1, 32, 32, 64, kind="ALiBi", score="biased"),
    Case("prefill 4x2k 32/8, root", (2048,) * 4, 2048, 32, 8, kind="ALiBi", score="rooted"),
    Case("decode b32 ctx4k 32/8, root", (4096,) * 32, 1, 32, 8, kind="ALiBi", score="rooted"),
    # gpt-oss: 64/8 heads of 64 with sinks, a window of 128 in every other layer.
    Case("decode b64 ctx8k 64/8x64, window 128", (8192,) * 64, 1, 64, 8, 64, kind="gpt-oss", window=128, sinks=True),
    Case(
        "decode b64 256..16k, window 128", spread(256, 16384, 64), 1, 64, 8, 64, kind="gpt-oss", window=128, sinks=True
    ),
    Case("decode b64 ctx8k 64/8x64, no window", (8192,) * 64, 1, 64, 8, 64, kind="gpt-oss", sinks=True),
    Case("prefill 4x4k 64/8x64, window 128", (4096,) * 4, 4096, 64, 8, 64, kind="gpt-oss", window=128, sinks=True),
    Case("chunked 2k on 16k, window 128", (16384,), 2048, 64, 8, 64, kind="gpt-oss", window=128, sinks=True),
    Case("prefill 4x4k 64/8x64, no window", (4096,) * 4, 4096, 64, 8, 64, kind="gpt-oss", sinks=True),
    # Gemma 3 and 4 with images: 32/16 heads of 128 (27b), 8/4 of 256 (4b), windows of 1024.
    Case("prefill 4x2k 32/16", (2048,) * 4, 2048, 32, 16, kind="images", images=GEMMA),
    Case("prefill 4x2k 32/16, window 1024", (2048,) * 4, 2048, 32, 16, kind="images", images=GEMMA, window=1024),
    Case(
        "prefill 4x2k 8/4x256, clamped",
        (2048,) * 4,
        2048,
        8,
        4,
        256,
        kind="images",
        images=GEMMA,
        window=1024,
        clamped=True,
    ),
    # Drafts, and canvases of a diffusion model among causal requests.
    Case("draft 8 tokens b32 ctx4k 32/8", (4096,) * 32, 8, 32, 8, kind="not causal", causal=(False,)),
    Case("prefill 16x256 on 4k 32/8, every other", (4096,) * 16, 256, 32, 8, kind="not causal", causal=(True, False)),
    # Head sizes without kernels of their own, and Gemma 4's global layers.
    Case("prefill 4x2k 32/8x72", (2048,) * 4, 2048, 32, 8, 72, kind="heads"),
    Case("decode b32 ctx4k 32/8x72", (4096,) * 32, 1, 32, 8, 72, kind="heads"),
    Case("prefill 4x2k 32/8x104", (2048,) * 4, 2048, 32, 8, 104, kind="heads"),
    Case("decode b32 ctx4k 32/8x104", (4096,) * 32, 1, 32, 8, 104, kind="heads"),
    Case("prefill 4x2k 8/2x512", (2048,) * 4, 2048, 8, 2, 512, kind="heads"),
    Case("decode b32 ctx4k 8/2x512", (4096,) * 32, 1, 8, 2, 512, kind="heads"),
    Case("decode b1 ctx8k 32/8", (8192,), 1, 32, 8, kind=KIND_INVARIANT),
    Case("decode b32 ctx8k 32/8", (8192,) * 32, 1, 32, 8, kind=KIND_INVARIANT),
    Case("decode b64 256..16k 96/8", spread(256, 16384, 64), 1, 96, 8, kind=KIND_INVARIANT),
    Case("prefill 1x2k 32/8", (2048,), 2048, 32, 8, kind=KIND_INVARIANT),
    Case("prefill 4x2k 32/8", (2048,) * 4, 2048, 32, 8, kind=KIND_INVARIANT),
    Case("chunked 512 on 8k 32/8", (8192,), 512, 32, 8, kind=KIND_INVARIANT),
)
QUICK = tuple(CASES[i] for i in (0, 2, 5, 11, 14, 18, 21, 22, 29))
