# SPDX-License-Identifier: Apache-2.0
"""A tiny Whisper with generated audio: cross attention to the keys of an encoder."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy
import torch

from tools.checkpoints import EOS, SPECIAL, SPREAD, VOCAB, save_tokenizer

from .engines import ROOT, Sequence, greedy, prompt

LAYERS = 2  # of the decoder, each with attention to itself and to the encoder
SECONDS, RATE, MELS = 2, 16000, 16
POSITIONS = SECONDS * 50  # of the encoder, whatever the audio's length
SETTINGS: dict[str, Any] = {
    "max_model_len": 128,
    "max_num_seqs": 2,  # so that the third request's first step is one with decodes in it
    "max_num_batched_tokens": 256,
    "limit_mm_per_prompt": {"audio": 1},
}
STEPS = 6


@cache
def checkpoint() -> str:
    """Folder of a seeded checkpoint with heads of 64."""
    import transformers as hf

    folder = ROOT / "build" / "checkpoints" / "whisper"
    config = hf.WhisperConfig(
        vocab_size=VOCAB,
        num_mel_bins=MELS,
        d_model=256,
        encoder_layers=1,
        decoder_layers=LAYERS,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_source_positions=POSITIONS,
        max_target_positions=128,
        init_std=SPREAD,
        bos_token_id=EOS,
        eos_token_id=EOS,
        pad_token_id=EOS,
        decoder_start_token_id=EOS + 1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    hf.WhisperForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    torch.set_rng_state(state)
    save_tokenizer(folder, SPECIAL)
    hf.WhisperFeatureExtractor(feature_size=MELS, chunk_length=SECONDS).save_pretrained(folder)
    return str(folder)


@cache
def install() -> None:
    """vLLM gets a processor of our tokenizer, and looks at the model's class here instead of in a new process."""
    from transformers import AutoTokenizer, WhisperFeatureExtractor, WhisperProcessor
    from vllm.model_executor.models import whisper
    from vllm.model_executor.models.registry import ModelRegistry

    class AnyTokenizer(WhisperProcessor):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> type:
            return type(argument)

    @cache
    def processor(folder: str) -> WhisperProcessor:
        return AnyTokenizer(WhisperFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))

    name = "WhisperForConditionalGeneration"
    ModelRegistry.register_model(name, getattr(whisper, name))
    whisper.WhisperProcessingInfo.get_hf_processor = lambda self, **_: processor(self.ctx.model_config.model)


def audio(seed: int) -> Any:
    """Seeded tones that rise, and noise."""
    draw = numpy.random.default_rng(seed)
    times = numpy.arange(SECONDS * RATE) / RATE
    tones = sum(numpy.sin(2 * numpy.pi * pitch * times * (1 + times)) for pitch in draw.uniform(100, 3000, 4))
    return (tones + draw.normal(size=times.size)).astype(numpy.float32) / 8


def transcribe(llm: Any) -> list[Sequence]:
    """Greedy tokens of three recordings, after prompts of different lengths."""
    requests = [
        {
            "encoder_prompt": {"prompt": "", "multi_modal_data": {"audio": (audio(seed), RATE)}},
            "decoder_prompt": {"prompt_token_ids": [EOS + 1, *prompt(length, seed)["prompt_token_ids"]]},
        }
        for seed, length in enumerate((1, 40, 7))
    ]
    return greedy(llm, requests, max_tokens=STEPS)
