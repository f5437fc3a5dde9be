# SPDX-License-Identifier: Apache-2.0
"""Transformers' own models in the place of vLLM: greedy tokens and log probabilities of prompts."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

import torch

from tools.checkpoints import LATENT


class Answer(NamedTuple):
    """Greedy tokens of each prompt, and the log probabilities of the prompts' tokens but the first."""

    tokens: list[list[int]]
    scores: list[list[float]]


def model_of(folder: str, dtype: torch.dtype) -> Any:
    """The checkpoint's model as Transformers has it."""
    import transformers

    settings = json.loads((pathlib.Path(folder) / "config.json").read_text())
    if settings["model_type"] in LATENT:  # which may be a name that Transformers has no class for
        name = LATENT[settings.pop("model_type")][0]
        config = getattr(transformers, f"{name}Config")(**settings)
        return getattr(transformers, f"{name}ForCausalLM").from_pretrained(folder, config=config, dtype=dtype).eval()
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def transformers_says(
    folder: str, prompts: list[dict[str, list[int]]], steps: int, dtype: torch.dtype = torch.float32
) -> Answer:
    """`steps` tokens after each prompt."""
    model = model_of(folder, dtype)
    tokens, scores = [], []
    for one in prompts:
        text = torch.tensor([one["prompt_token_ids"]])
        made = model.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=steps, do_sample=False, eos_token_id=None
        )
        tokens.append(made[0, text.shape[1] :].tolist())
        scores.append(log_probabilities(model, text))
    return Answer(tokens, scores)


def log_probabilities(model: Any, text: torch.Tensor) -> list[float]:
    """Of every token of `text`, [1, tokens], but the first, given those before it."""
    with torch.no_grad():
        logprobs = model(text).logits[0, :-1].float().log_softmax(-1)
    return logprobs.gather(1, text[0, 1:, None])[:, 0].tolist()
