# SPDX-License-Identifier: Apache-2.0
"""Attention of vision and audio encoders: cases, contestants and the check of results.

Images lie one after the other, and queries, keys and values are slices of one projection's rows, as vLLM's encoder
layers give them. torch SDPA is called in the three ways that there are: for each image, as vLLM's TORCH_SDPA does; in
one batch, where all images are alike in size; and in one padded batch with a mask, where they are not. Padding is left
out of that one's time, in its favour; joining the results of images is in vLLM's.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch

from rocmforge_plugin.ops import AttentionPlan, AttentionPlanner, varlen_attention
from rocmforge_plugin.problem import Problem

from .attention_cases import L2_BYTES
from .compare import OURS, Calls

EACH, BATCH, PADDED = "torch SDPA, each image", "torch SDPA, one batch", "torch SDPA, padded"
FLASH_ATTENTION = "FlashAttention-3"
PEERS = (EACH, BATCH, PADDED, FLASH_ATTENTION)


@dataclass(frozen=True)
class Case:
    """Images of `lens` patches each, whose patches see one another."""

    name: str
    lens: tuple[int, ...]
    heads: int
    head: int
    dtype: torch.dtype = torch.bfloat16

    @property
    def tokens(self) -> int:
        return sum(self.lens)

    @property
    def scale(self) -> float:
        return self.head**-0.5

    @property
    def alike(self) -> bool:
        """In size."""
        return len(set(self.lens)) == 1

    @property
    def flops(self) -> float:
        return 4.0 * self.heads * self.head * sum(n * n for n in self.lens)

    @property
    def bytes(self) -> float:
        """Queries, keys and values read once, results written once."""
        return 4.0 * self.dtype.itemsize * self.heads * self.head * self.tokens


MIXED = (1024, 4096, 2304, 1536)
CASES = (
    Case("SigLIP of Gemma 3, 8 images of 4096, 16x72", (4096,) * 8, 16, 72),
    Case("CLIP of LLaVA, 32 images of 577, 16x64", (577,) * 32, 16, 64),
    Case("Qwen2.5-VL, 4 images, 16x80", MIXED, 16, 80),
    Case("Qwen2.5-VL, its windows of 64, 16x80", (64,) * 128 + (32,) * 24, 16, 80),
    Case("Qwen3-VL, 4 images, 16x72", MIXED, 16, 72),
    Case("GLM-4.1V, 4 images, 12x128", MIXED, 12, 128),
    Case("GLM-4.1V, 1 image of 16k, 12x128", (16384,), 12, 128),
    Case("4 images, 12x96", MIXED, 12, 96),
    Case("Whisper large, 8 clips of 1500, 20x64, float16", (1500,) * 8, 20, 64, torch.float16),
)
QUICK = (CASES[1], CASES[4])


class Inputs:
    """One set of a case's tensors on a device."""

    def __init__(self, case: Case, seed: int, device: str = "cuda") -> None:
        generator = torch.Generator(device=device).manual_seed(seed)
        qkv = torch.randn(case.tokens, 3, case.heads, case.head, dtype=case.dtype, device=device, generator=generator)
        self.query, self.key, self.value = qkv.unbind(1)
        self.out = torch.full((case.tokens, case.heads, case.head), float("nan"), device=device).to(case.dtype)
        self.start = torch.tensor([0, *accumulate(case.lens)], dtype=torch.int32, device=device)
        self.lens = torch.tensor(case.lens, dtype=torch.int32, device=device)


def sets_of(case: Case) -> int:
    """How many sets of inputs are larger together than the L2 cache."""
    return max(1, min(16, int(-(-L2_BYTES // case.bytes))))


def sampled_error(case: Case, inputs: Inputs, out: torch.Tensor) -> float:
    """Norm of the error of `out` [tokens, heads, head] over that of the result, in fp64.

    At a few patches of the first images and of the last.
    """
    wrong = norm = 0.0
    starts = [0, *accumulate(case.lens)]
    for i in sorted({*range(min(4, len(case.lens))), len(case.lens) - 1}):
        image = slice(starts[i], starts[i + 1])
        patches = sorted({starts[i], starts[i] + case.lens[i] // 3, starts[i + 1] - 1})
        scores = torch.einsum("qhd,khd->hqk", inputs.query[patches].double(), inputs.key[image].double()) * case.scale
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), inputs.value[image].double())
        wrong += (out[patches].double() - expected).norm().item() ** 2
        norm += expected.norm().item() ** 2
    return (wrong / norm) ** 0.5


Contestant = Callable[[Case, list[Inputs]], Calls]


def planner_of(case: Case, device: torch.device | str) -> AttentionPlanner:
    """What an encoder whose images are like the case would make."""
    problem = Problem(str(case.dtype), case.heads, case.heads, case.head, case.head, format="split")
    return AttentionPlanner(problem, device, len(case.lens), case.tokens)


def plan(case: Case, planner: AttentionPlanner, x: Inputs) -> AttentionPlan:
    return planner.plan(x.start, x.lens, max(case.lens), case.tokens, causal=False)


def ours(case: Case, sets: list[Inputs]) -> Calls:
    """rocmforge through its public op, with the plan that all layers of an encoder share."""
    return [
        functools.partial(
            varlen_attention,
            x.query,
            x.key,
            x.value,
            x.start,
            x.start,
            x.lens,
            max_query_len=max(case.lens),
            scale=case.scale,
            causal=False,
            out=x.out,
            plan=plan(case, planner_of(case, x.query.device), x),
        )
        for x in sets
    ]


def plan_only(case: Case, sets: list[Inputs]) -> Calls:
    """The plan by itself."""
    planner = planner_of(case, sets[0].query.device)
    return [functools.partial(plan, case, planner, x) for x in sets]


def _sdpa(case: Case, *tensors: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Of tensors [images, patches, heads, head]; the backend is torch's choice."""
    q, k, v = (x.transpose(1, 2) for x in tensors)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=case.scale)
    return out.transpose(1, 2)


def sdpa_each(case: Case, sets: list[Inputs]) -> Calls:
    """A call for each image, as vLLM's torch_sdpa_wrapper makes them."""

    def call(x: Inputs) -> torch.Tensor:
        images = zip(*(part.unsqueeze(0).split(case.lens, 1) for part in (x.query, x.key, x.value)), strict=True)
        return torch.cat([_sdpa(case, *image) for image in images], 1).flatten(0, 1)

    return [functools.partial(call, x) for x in sets]


def sdpa_batch(case: Case, sets: list[Inputs]) -> Calls:
    """One call for all images.

    Raises:
        NotImplementedError: they differ in size.
    """
    if not case.alike:
        raise NotImplementedError("images of one size only")

    def call(x: Inputs) -> torch.Tensor:
        images = (part.unflatten(0, (len(case.lens), -1)) for part in (x.query, x.key, x.value))
        return _sdpa(case, *images).flatten(0, 1)

    return [functools.partial(call, x) for x in sets]


def sdpa_padded(case: Case, sets: list[Inputs]) -> Calls:
    """One call for all images, padded to the longest; its result is padded.

    Raises:
        NotImplementedError: they are alike in size.
    """
    if case.alike:
        raise NotImplementedError("nothing to pad")
    inside = torch.arange(max(case.lens), device=sets[0].lens.device) < sets[0].lens[:, None]
    calls = []
    for x in sets:
        padded = []
        for part in (x.query, x.key, x.value):
            rows = torch.zeros(*inside.shape, case.heads, case.head, dtype=case.dtype, device=part.device)
            rows[inside] = part
            padded.append(rows)
        calls.append(functools.partial(_sdpa, case, *padded, mask=inside[:, None, None]))
    return calls


def without_padding(case: Case, out: torch.Tensor) -> torch.Tensor:
    """[images, longest, heads, head] as [tokens, heads, head]."""
    return torch.cat([image[:n] for image, n in zip(out, case.lens, strict=True)])


def flash_attention(case: Case, sets: list[Inputs]) -> Calls:
    """FlashAttention-3 as vLLM's encoder layers call it."""
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func

    return [
        functools.partial(
            flash_attn_varlen_func,
            q=x.query,
            k=x.key,
            v=x.value,
            out=torch.empty_like(x.out),
            cu_seqlens_q=x.start,
            cu_seqlens_k=x.start,
            max_seqlen_q=max(case.lens),
            max_seqlen_k=max(case.lens),
            softmax_scale=case.scale,
            causal=False,
            fa_version=3,
        )
        for x in sets
    ]


def error(case: Case, inputs: Inputs, name: str, result: Any) -> float:
    """Of what a contestant's first call returned."""
    return sampled_error(case, inputs, without_padding(case, result) if name == PADDED else result)


def available() -> dict[str, Contestant]:
    """Contestants that are here."""
    found: dict[str, Contestant] = {OURS: ours, EACH: sdpa_each, BATCH: sdpa_batch, PADDED: sdpa_padded}
    if importlib.util.find_spec("vllm"):
        found[FLASH_ATTENTION] = flash_attention
    return found
