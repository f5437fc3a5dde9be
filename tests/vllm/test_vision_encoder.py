# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5-VL end to end with generated images: a vision encoder with heads of 80 whose layers attend in windows of four
tokens and in full, against the same model with vLLM's own attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import rocmforge_plugin
from rocmforge_plugin.ops import varlen_attention
from rocmforge_plugin.vllm.encoder import layer
from tools.encoder_checkpoints import LAYERS, make

from .engines import ROOT, engine, greedy, largest
from .vision import SETTINGS, image, images_only_processor, torchvision_importable

STEPS = 4
ROUNDING = 5e-4  # of fp32 log probabilities


@cache
def checkpoint() -> str:
    return str(make("qwen2_5_vl", ROOT / "build" / "checkpoints" / "encoder-qwen2_5_vl"))


@cache
def install() -> None:
    """As `vision.install`, of this model."""
    from transformers import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    with torchvision_importable():
        from vllm.model_executor.models import qwen2_5_vl
    from vllm.model_executor.models.registry import ModelRegistry

    name = "Qwen2_5_VLForConditionalGeneration"
    ModelRegistry.register_model(name, getattr(qwen2_5_vl, name))
    qwen2_5_vl.Qwen2_5_VLProcessingInfo.get_hf_processor = lambda self, **_: images_only_processor(
        Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil, self.ctx.model_config.model
    )


def prompts() -> list[dict[str, Any]]:
    """Images of one window, of several, and of windows that the edge cuts; and no image at all."""
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    return [
        {"prompt": f"what does {mark} say?", "multi_modal_data": {"image": image(0, 56, 168)}},
        {
            "prompt": f"compare {mark} with {mark}: the rotary angles of a row of pairs",
            "multi_modal_data": {"image": [image(1, 84, 84), image(2, 56, 56)]},
        },
        {"prompt": "the key opens page seven and the lock closes page nine"},
    ]


def score(llm: Any) -> list[list[float]]:
    """Log probabilities of the prompts' own tokens but the first; what the encoder gets wrong shows behind an image."""
    from vllm import SamplingParams

    llm.llm_engine.reset_encoder_cache()
    parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
    results = llm.generate(prompts(), parameters, use_tqdm=False)
    return [
        [
            step[token].logprob
            for token, step in zip(result.prompt_token_ids[1:], result.prompt_logprobs[1:], strict=True)
        ]
        for result in results
    ]


def tokens_and_scores(llm: Any) -> tuple[list[list[int]], list[list[float]]]:
    return [one.tokens for one in greedy(llm, prompts(), max_tokens=STEPS)], score(llm)


def apart(ours: list[list[float]], theirs: list[list[float]]) -> float:
    return largest(abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True))


def faulty(change: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
    """Attention with other arguments, without the plan that was made for the right ones."""

    def attend(*tensors: Any, plan: Any, **options: Any) -> Any:
        q, k, v, starts, _, lens = tensors
        asked = {"query_start_loc": starts, "seq_lens": lens} | options
        asked |= change(asked)
        starts, lens = asked.pop("query_start_loc"), asked.pop("seq_lens")
        return varlen_attention(q, k, v, starts, starts, lens, **asked)

    return attend


def all_of_one(asked: dict[str, Any]) -> dict[str, Any]:
    """One sequence of all tokens."""
    ends = asked["query_start_loc"][[0, -1]].contiguous()
    return {"query_start_loc": ends, "seq_lens": ends[1:] - ends[:1]}


FAULTS = {
    "causal": faulty(lambda asked: {"causal": True}),
    "no windows, and images that see each other": faulty(all_of_one),
}


def test_windows_and_full_attention_of_images(reference, monkeypatch):
    install()
    reference.pool.submit(install).result()
    theirs = reference.start(checkpoint(), tokens_and_scores, **SETTINGS)
    wrong = {}
    with engine(checkpoint(), "rocmforge", "float32", **SETTINGS) as llm:
        runs = []
        handle = llm.apply_model(lambda model: model.visual.register_forward_hook(lambda *_: runs.append(1)))[0]
        llm.llm_engine.reset_encoder_cache()
        rocmforge_plugin.reset_launches()
        tokens = [one.tokens for one in greedy(llm, prompts(), max_tokens=STEPS)]
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        handle.remove()
        scores = score(llm)
        for name, attend in FAULTS.items():
            with monkeypatch.context() as patch:
                patch.setattr(layer, "varlen_attention", attend)
                wrong[name] = score(llm)
    assert runs and launches["attention_prefill_float_d80_narrow_split"] == LAYERS * len(runs)
    # Two plans for each run of the encoder, one in windows and one in full, and the language model's.
    assert launches["attention_plan"] == 2 * len(runs) + STEPS
    found = theirs.result()
    assert found.launches == {}, "the reference ran rocmforge's kernels"
    assert tokens == found.result[0] and apart(scores, found.result[1]) < ROUNDING
    errors = {name: apart(rows, scores) for name, rows in wrong.items()}
    assert min(errors.values()) > 20 * ROUNDING, errors
