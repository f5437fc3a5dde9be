# SPDX-License-Identifier: Apache-2.0
"""BERT and ModernBERT end to end, embedding and reranking, against Transformers in fp32. ModernBERT's layers alternate
between all tokens and a window to either side.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin.ops import varlen_attention
from rocmforge_plugin.vllm.backend import encoder
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl
from tools.encoder_checkpoints import LAYERS, WINDOW, make

from .engines import ROOT, engine, prompt

LENGTHS = (1, 2, WINDOW, WINDOW + 1, 33, 100)  # of one step
ROUNDING = 2e-5  # of fp32 results of size 1
SETTINGS: dict[str, Any] = {"runner": "pooling", "max_num_batched_tokens": 256, "max_model_len": 256}
EACH_TOKEN = {"pooler_config": {"task": "token_embed"}}
PROMPTS = [prompt(length, length) for length in LENGTHS]
PAIR = ("what does the lock close?", "the lock closes page nine while rotary angles turn")


@cache
def checkpoint(kind: str) -> str:
    return str(make(kind, ROOT / "build" / "checkpoints" / f"encoder-{kind}"))


def transformers_says(kind: str, head: Callable[[Any], torch.Tensor], prompts: list[dict]) -> list[torch.Tensor]:
    """What `head` makes of a model's answer to each prompt alone."""
    import transformers

    classes = {"modernbert_rerank": transformers.AutoModelForSequenceClassification}
    model = classes.get(kind, transformers.AutoModel).from_pretrained(checkpoint(kind), dtype=torch.float32).eval()
    with torch.no_grad():
        return [head(model(torch.tensor([one["prompt_token_ids"]]))) for one in prompts]


def of_unit_length(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(x, dim=-1)


def each_token(llm: Any) -> list[torch.Tensor]:
    """A vector of length 1 for each token of each prompt."""
    found = llm.encode(PROMPTS, pooling_task="token_embed", use_tqdm=False)
    return [of_unit_length(one.outputs.data.float()) for one in found]


def apart(ours: list[torch.Tensor], right: list[torch.Tensor]) -> float:
    assert [one.shape for one in ours] == [one.shape for one in right]
    return max(float((a - b).abs().nan_to_num(torch.inf).max()) for a, b in zip(ours, right, strict=True))


def launched() -> dict[str, int]:
    """Of attention, since the last time."""
    found = {name: count for name, count in rocmforge_plugin.launches().items() if count and "attention" in name}
    rocmforge_plugin.reset_launches()
    return found


def assert_launches(steps: int, problems: int) -> None:
    """Each layer was one launch in each step, each problem was planned once a step, and no cache was written."""
    assert not any("write" in name and count for name, count in rocmforge_plugin.launches().items())
    found = launched()
    assert found.pop("attention_plan") == problems * steps
    assert found.pop("attention_prefill_float_d64_narrow_split") == LAYERS * steps
    assert set(found) <= {"attention_combine_float_d64"}


def faulty(windowed: bool | None, **changes: Callable[[Any], Any]) -> Callable[..., torch.Tensor]:
    """Attention with arguments changed, in the layers with a window, in those without, or in all of them."""

    def attend(*tensors: torch.Tensor, plan: Any, **options: Any) -> torch.Tensor:
        if windowed is None or windowed == bool(options["window"]):
            options |= {name: change(options[name]) for name, change in changes.items()}
        return varlen_attention(*tensors, **options)

    return attend


FAULTS = {
    "the later side of the window is missing": faulty(True, causal=lambda _: True),
    "the window is one short": faulty(True, window=lambda window: window - 1),
    "the window is one long": faulty(True, window=lambda window: window + 1),
    "no window": faulty(True, window=lambda _: 0),
    "causal instead of full": faulty(False, causal=lambda _: True),
}


def test_embeddings_of_bert(monkeypatch):
    right = transformers_says("bert", lambda answer: of_unit_length(answer.last_hidden_state[0, 0]), PROMPTS)
    with engine(checkpoint("bert"), "rocmforge", "float32", **SETTINGS) as llm:

        def embed() -> list[torch.Tensor]:
            return [torch.tensor(one.outputs.embedding) for one in llm.embed(PROMPTS, use_tqdm=False)]

        ours = embed()
        assert_launches(steps=1, problems=1)
        monkeypatch.setattr(encoder, "varlen_attention", faulty(None, causal=lambda _: True))
        wrong = embed()
    assert apart(ours, right) < ROUNDING
    assert apart(wrong, right) > 100 * ROUNDING


@pytest.mark.parametrize("eager", [True, False], ids=("eager", "compiled"))
def test_each_token_of_modernbert(eager, monkeypatch):
    """Layers with a window and without; compiled by torch's tracer, whose graph runs as it is."""
    monkeypatch.setenv("VLLM_CPU_CI_ENV", "1")
    right = transformers_says("modernbert", lambda answer: of_unit_length(answer.last_hidden_state[0]), PROMPTS)
    wrong = {}
    with engine(checkpoint("modernbert"), "rocmforge", "float32", enforce_eager=eager, **SETTINGS, **EACH_TOKEN) as llm:
        ours = each_token(llm)
        assert_launches(steps=1, problems=2)
        for name, attend in FAULTS.items() if eager else ():
            with monkeypatch.context() as patch:
                patch.setattr(encoder, "varlen_attention", attend)
                wrong[name] = apart(each_token(llm), right)
        launched()
        again = each_token(llm)
        assert_launches(steps=1, problems=2)
    assert apart(ours, right) < ROUNDING and apart(again, right) < ROUNDING
    assert all(error > 100 * ROUNDING for error in wrong.values()), wrong


def test_reranking_by_modernbert():
    """Requests to classify, of several steps, and a pair that is scored."""
    from .engines import tokenize

    pair = [{"prompt_token_ids": tokenize("".join(PAIR))}]
    right = transformers_says("modernbert_rerank", lambda answer: answer.logits[0].float().sigmoid(), [*PROMPTS, *pair])
    with engine(checkpoint("modernbert_rerank"), "rocmforge", "float32", **SETTINGS | {"max_num_seqs": 2}) as llm:
        ours = [torch.tensor(one.outputs.probs) for one in llm.classify(PROMPTS, use_tqdm=False)]
        assert_launches(steps=3, problems=2)
        scored = llm.score(*PAIR, use_tqdm=False)
        assert_launches(steps=1, problems=2)
    assert apart([*ours, torch.tensor([scored[0].outputs.score])], right) < ROUNDING


@pytest.mark.parametrize("attn_type", ["encoder_only", "encoder"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [("logits_soft_cap", 30.0), ("alibi_slopes", [0.5, 0.25]), ("use_alibi_sqrt", True), ("sinks", torch.zeros(2))],
)
def test_what_encoders_have_no_kernel_for_is_refused_as_the_model_is_built(attn_type, setting, value):
    assert RocmForgeImpl(2, 64, 0.125, attn_type=attn_type).problem(torch.float32).op == "varlen_attention"
    with pytest.raises(ValueError, match=f"(?=.*{setting}).*of an encoder.*leave out --attention-backend"):
        RocmForgeImpl(2, 64, 0.125, attn_type=attn_type, **{setting: value})


def test_vllms_fusion_passes_leave_encoders_alone():
    impl = RocmForgeImpl(2, 64, 0.125, attn_type="encoder_only")
    assert not impl.fused_rope_kvcache_supported()
    assert RocmForgeImpl(2, 64, 0.125).fused_rope_kvcache_supported()
