# SPDX-License-Identifier: Apache-2.0
"""A prefix-LM decoder (HRM-Text): the tokens of a prompt see each other, all that follow see what was before them."""

from __future__ import annotations

from functools import cache

import torch

import rocmforge_plugin
from tools.checkpoints import EOS, SPREAD, VOCAB, save_tokenizer

from .engines import ROOT, engine, greedy, largest, prompt

STEPS = 5
# vLLM schedules such prompts whole, and says so of nothing else that it is asked for.
SETTINGS = {"max_num_batched_tokens": 512, "max_num_seqs": 3, "enable_chunked_prefill": False}


@cache
def checkpoint() -> str:
    """Folder of a seeded checkpoint with two stacks of one layer, each of which runs once."""
    import transformers as hf

    folder = ROOT / "build" / "checkpoints" / "hrm_text"
    config = hf.HrmTextConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        H_cycles=1,
        L_cycles=1,
        max_position_embeddings=2048,
        initializer_range=SPREAD,
        eos_token_id=EOS,
        pad_token_id=EOS,
        bos_token_id=EOS,
    )
    state = torch.get_rng_state()
    torch.manual_seed(0)
    hf.HrmTextForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    torch.set_rng_state(state)
    save_tokenizer(folder)
    return str(folder)


def answer(llm):
    """Four prompts for three places, so that one begins beside others' decodes."""
    return greedy(llm, [prompt(length, start) for start, length in enumerate((40, 1, 33, 200))], max_tokens=STEPS)


def test_tokens_and_launches(reference):
    model = checkpoint()
    expected = reference.start(model, answer, **SETTINGS)
    with engine(model, "rocmforge", "float32", **SETTINGS) as llm:
        found = answer(llm)
        launches = {name: count for name, count in rocmforge_plugin.launches().items() if count}
        layers = llm.apply_model(
            lambda model: [type(module).__name__ for module in model.modules() if hasattr(module, "attn_backend")]
        )[0]
    assert layers and set(layers) == {"PrefillPrefixLMAttention"}
    for one, other in zip(found, expected.result().result, strict=True):
        assert one.tokens == other.tokens
        assert largest(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < 2e-3
    steps = launches["attention_plan"]
    assert steps == 2 * STEPS
    assert sum(count for name, count in launches.items() if "kv_write" in name) == len(layers) * steps
    assert sum(count for name, count in launches.items() if "prefill" in name) >= len(layers) * 2
    assert sum(count for name, count in launches.items() if "decode" in name) >= len(layers) * (steps - 2)
