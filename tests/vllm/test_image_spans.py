# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 and 4 end to end with generated images, whose tokens see each other: against Transformers' models, in fp32.

Faults in what the metadata builder is told and in the masks of layers must show, since a comparison that one of them
passes proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import rocmforge_plugin
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from rocmforge_plugin.vllm.backend.masks import RequestRanges

from . import image_spans
from .engines import engine, greedy, largest

STEPS = 5
ROUNDING = 5e-4  # of fp32 log probabilities
SETTINGS: dict[str, Any] = {"limit_mm_per_prompt": {"image": 2, "video": 0}, "max_num_batched_tokens": 512}
MASKS = {"gemma3": ["ranges", "ranges"], "gemma4": ["clamped_ranges", "windowed"]}
# Of a range, what else a builder could make of it; and other masks of the layers.
RANGES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "end exclusive": lambda first, last: (first, last - 1),
    "start exclusive": lambda first, last: (first + 1, last),
    "no ranges": lambda first, last: (0, 0),
}
OTHER_MASKS = {
    "gemma3": {"windowed": ["windowed", "ranges"]},
    "gemma4": {"not clamped": ["ranges", "windowed"], "ranges without a window": ["clamped_ranges", "ranges"]},
}


def score(llm: Any, kind: str) -> list[list[float]]:
    """Log probabilities of the prompts' own tokens but the first."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
    results = llm.generate(image_spans.prompts(kind), parameters, use_tqdm=False)
    return [
        [step[token].logprob for token, step in zip(one.prompt_token_ids[1:], one.prompt_logprobs[1:], strict=True)]
        for one in results
    ]


def apart(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Largest difference of log probabilities."""
    return largest(abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True))


@contextmanager
def told(change: Callable[[int, int], tuple[int, int]]) -> Iterator[None]:
    """Each range becomes what `change` makes of it, before it is packed."""
    hold = RequestRanges.hold

    def faulty(self: Any, ranges: Any, *rest: Any) -> Any:
        return hold(self, {place: [change(*one) for one in spans] for place, spans in (ranges or {}).items()}, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestRanges, "hold", faulty)
        yield


def impls(model: Any) -> list[RocmForgeImpl]:
    return [module.impl for module in model.modules() if isinstance(getattr(module, "impl", None), RocmForgeImpl)]


def set_masks(llm: Any, masks: list[str]) -> None:
    for impl, mask in zip(llm.apply_model(impls)[0], masks, strict=True):
        impl.mask, impl._number = mask, -1


@pytest.mark.parametrize("kind", MASKS)
def test_gemma(kind):
    folder = image_spans.checkpoint(kind)
    image_spans.install()
    tokens, scores = image_spans.transformers_says(kind, folder, STEPS)
    with engine(folder, "rocmforge", "float32", **SETTINGS) as llm:
        found = greedy(llm, image_spans.prompts(kind), max_tokens=STEPS)
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        masks = [(impl.mask, impl.window) for impl in llm.apply_model(impls)[0]]
        exact = apart(score(llm, kind), scores)
        faulty = {}
        for name, change in RANGES.items():
            with told(change):
                faulty[name] = apart(score(llm, kind), scores)
        for name, others in OTHER_MASKS[kind].items():
            set_masks(llm, others)
            faulty[name] = apart(score(llm, kind), scores)
        set_masks(llm, MASKS[kind])
        healed = apart(score(llm, kind), scores)
    assert masks == list(zip(MASKS[kind], (image_spans.WINDOW[kind], 0), strict=True))
    assert [one.tokens for one in found] == tokens
    assert max(exact, healed) < ROUNDING
    assert min(faulty.values()) > 20 * ROUNDING, faulty
    # Each layer has a problem of its own, planned for once in each step; and ran as its mask asks. The vision encoder,
    # of one layer, plans for itself where its attention is ours.
    listed = sum("ranges" in mask for mask in MASKS[kind])
    steps, rest = divmod(launches["attention_plan_listed"], listed)
    of_images = sum(count for name, count in launches.items() if "prefill" in name and name.endswith("split"))
    plans = launches.get("attention_plan", 0)
    assert rest == 0 and steps >= STEPS and plans == (len(MASKS[kind]) - listed) * steps + of_images
    ran = {name: count for name, count in launches.items() if "prefill" in name or "decode" in name}
    assert sum(count for name, count in ran.items() if name.endswith("_listed")) >= listed * steps
    assert sum(ran.values()) >= len(MASKS[kind]) * steps
