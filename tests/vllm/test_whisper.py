# SPDX-License-Identifier: Apache-2.0
"""Whisper end to end: cross attention over the encoder's pages, without keys after a request's first step."""

from __future__ import annotations

import rocmforge_plugin
from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl

from . import whisper
from .engines import engine, largest


def test_tokens_and_launches(reference):
    """Tokens are those of vLLM's own attention."""
    model = whisper.checkpoint()
    whisper.install()
    reference.pool.submit(whisper.install).result()
    expected = reference.start(model, whisper.transcribe, **whisper.SETTINGS)
    with engine(model, "rocmforge", "float32", **whisper.SETTINGS) as llm:
        found = whisper.transcribe(llm)
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        layers = llm.apply_model(
            lambda model: [
                type(module).__name__
                for module in model.modules()
                if isinstance(getattr(module, "impl", None), RocmForgeImpl)
            ]
        )[0]
    assert sorted(layers) == ["Attention"] * whisper.LAYERS + ["CrossAttention"] * whisper.LAYERS
    for one, other in zip(found, expected.result().result, strict=True):
        assert one.tokens == other.tokens
        assert largest(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < 2e-3
    # Two recordings are heard at a time, then the third: the encoder, of one layer, attends and plans once for each.
    heard = sum(count for name, count in launches.items() if name.endswith("split"))
    assert heard == 2
    # Each kind of the decoder's attention has a builder, which plans once a step.
    steps, rest = divmod(launches["attention_plan"] - heard, 2)
    assert rest == 0 and steps == 2 * whisper.STEPS
    # Keys of the encoder are written in a request's first step, those of tokens in each.
    writes = sum(count for name, count in launches.items() if "kv_write" in name)
    assert writes == whisper.LAYERS * (steps + 2)
    assert sum(count for name, count in launches.items() if "prefill" in name) >= 2 * whisper.LAYERS + heard
    assert sum(count for name, count in launches.items() if "decode" in name) >= 2 * whisper.LAYERS * (steps - 2)
