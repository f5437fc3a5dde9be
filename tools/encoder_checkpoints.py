# SPDX-License-Identifier: Apache-2.0
"""Small seeded checkpoints of encoders, with the tokenizer of `checkpoints`: BERT and ModernBERT, which embed and
rerank, and Qwen2.5-VL, whose vision encoder attends in windows and in full.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import torch

from tools.checkpoints import EOS, SPREAD, VOCAB, save_tokenizer

MAKER = "rocmforge seeded encoder, format 1"
LAYERS = 4
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": EOS,
    "initializer_range": SPREAD,
}
# ModernBERT: layers 0 and 3 see all, 1 and 2 as far as WINDOW to either side.
WINDOW = 8
MODERNBERT = {
    **TEXT,
    "global_attn_every_n_layers": 3,
    "local_attention": 2 * WINDOW,
    "initializer_cutoff_factor": 3.0,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
    "cls_token_id": EOS,
    "sep_token_id": EOS,
}
VL_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VL_HEAD = 80


def _bert() -> Any:
    import transformers as hf

    return hf.BertModel(hf.BertConfig(**TEXT))


def _modernbert() -> Any:
    import transformers as hf

    return hf.ModernBertModel(hf.ModernBertConfig(**MODERNBERT))


def _modernbert_rerank() -> Any:
    import transformers as hf

    return hf.ModernBertForSequenceClassification(
        hf.ModernBertConfig(**MODERNBERT, num_labels=1, classifier_pooling="mean")
    )


def _qwen2_5_vl() -> Any:
    """Two heads of 80; layers 0 and 2 attend in windows of 56 pixels, 1 and 3 in full."""
    import transformers as hf

    ids = {
        f"{what}_token_id": 256 + VL_SPECIAL.index(f"<|{token}|>")
        for what, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    text = {
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [16, 24, 24]},
        "initializer_range": SPREAD,
        "tie_word_embeddings": False,
    }
    vision = {
        "depth": LAYERS,
        "hidden_size": 2 * VL_HEAD,
        "intermediate_size": 256,
        "num_heads": 2,
        "window_size": 56,
        "fullatt_block_indexes": [1, 3],
        "out_hidden_size": 256,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "initializer_range": SPREAD,
    }
    config = hf.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
    return hf.Qwen2_5_VLForConditionalGeneration(config)


MODELS = {"bert": _bert, "modernbert": _modernbert, "modernbert_rerank": _modernbert_rerank, "qwen2_5_vl": _qwen2_5_vl}


def make(kind: str, folder: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
    """Make an fp32 checkpoint of one of MODELS unless `folder` already holds this very one.

    Raises ValueError for a folder that holds something else.
    """
    recipe = json.dumps({"maker": MAKER, "kind": kind, "seed": seed})
    stamp = folder / "recipe.json"
    if folder.exists():
        if stamp.exists() and stamp.read_text() == recipe:
            return folder
        if any(folder.iterdir()) and not stamp.exists():
            raise ValueError(f"{folder} holds something else; name an empty folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[kind]()
        model.save_pretrained(folder)
    vision = kind == "qwen2_5_vl"
    save_tokenizer(folder, VL_SPECIAL) if vision else save_tokenizer(folder)
    if vision:
        _save_processor(folder)
    stamp.write_text(recipe)
    return folder


def _save_processor(folder: pathlib.Path) -> None:
    """Multiples of 28 pixels stay the size they are."""
    settings = {
        "processor_class": "Qwen2_5_VLProcessor",
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": 56 * 56, "longest_edge": 2 * 112 * 112},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=1))
