# SPDX-License-Identifier: Apache-2.0
"""Gemma 3 and Gemma 4 with generated images, whose tokens see each other, in vLLM and in Transformers.

vLLM's CPU attention has no such mask, so Transformers' own models are the reference. As in vision.py an empty module
stands in for torchvision where it is missing, and images are prepared by Transformers' PIL processors on both sides.
"""

from __future__ import annotations

import importlib
import json
import pathlib
from functools import cache
from typing import Any

import torch

from tools.checkpoints import EOS, SPECIAL, SPREAD, save_tokenizer

from .engines import ROOT, WORDS
from .vision import image, torchvision_importable

ARCHITECTURES = {"gemma3": "Gemma3ForConditionalGeneration", "gemma4": "Gemma4ForConditionalGeneration"}
# Of Gemma 3 all images have 64 tokens, and vLLM has no ranges longer than the window; of Gemma 4 up to 70, and what is
# longer than the window is cut by it.
WINDOW = {"gemma3": 72, "gemma4": 40}
MARKS = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
OTHER_MARKS = {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>", "video_token": "<|video|>"}
NEWLINES = ("\n", "\n\n", "\n\n\n", "\n\n\n\n")  # which vLLM wants as tokens of their own
NAMES = (*SPECIAL, *MARKS.values(), *NEWLINES, *OTHER_MARKS.values())
IDS = {name: 256 + NAMES.index(mark) for name, mark in (MARKS | OTHER_MARKS).items()}
VOCAB = 280
LAYERS = ("sliding_attention", "full_attention")
SIDE, TOKENS = 112, 64  # of Gemma 3's images: pixels, and tokens that become of them


@cache
def checkpoint(kind: str) -> str:
    """Folder of a tiny seeded checkpoint: one layer with a window, one without, and a vision encoder of one layer."""
    import transformers as hf

    folder = ROOT / "build" / "checkpoints" / f"{kind}-images"
    state = torch.get_rng_state()
    torch.manual_seed(0)
    model = getattr(hf, ARCHITECTURES[kind])(_config(kind))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 and not name.endswith("norm.weight"):
                # A token's embedding, which scores are made with too, must not outweigh what attention adds.
                weight.normal_(std=SPREAD / 4 if "embed_tokens" in name else SPREAD)
    torch.set_rng_state(state)
    model.to(torch.bfloat16).save_pretrained(folder)
    if kind == "gemma3":
        _name_as_released(folder / "model.safetensors")
    save_tokenizer(folder, NAMES)
    (folder / "preprocessor_config.json").write_text(json.dumps({"processor_class": f"{kind.capitalize()}Processor"}))
    return str(folder)


def _config(kind: str) -> Any:
    import transformers as hf

    text = {
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": len(LAYERS),
        "layer_types": list(LAYERS),
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "sliding_window": WINDOW[kind],
        "max_position_embeddings": 2048,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "bos_token_id": EOS,
    }
    vision = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "gemma3":
        return hf.Gemma3Config(
            text_config=text | {"query_pre_attn_scalar": 64},
            vision_config=vision | {"image_size": SIDE, "patch_size": 14, "vision_use_head": False},
            mm_tokens_per_image=TOKENS,
            **{f"{name}_index": IDS[name] for name in MARKS},
        )
    return hf.Gemma4Config(
        text_config=text
        | {
            "use_bidirectional_attention": "vision",
            "global_head_dim": 512,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": VOCAB,
        },
        vision_config=vision | {"num_key_value_heads": 2, "position_embedding_size": 64, "default_output_length": 70},
        audio_config=None,
        **{f"{name}_id": IDS[name] for name in (*MARKS, *OTHER_MARKS)},
    )


def _name_as_released(path: pathlib.Path) -> None:
    """The names that released checkpoints have, which vLLM reads; Transformers reads both and writes others."""
    from safetensors.torch import load_file, save_file

    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model.", 1): weight
        for name, weight in load_file(path).items()
    }
    save_file(weights, path, metadata={"format": "pt"})


@cache
def processor(folder: str) -> Any:
    """The model's processor with an image processor that needs no torchvision, and no part for videos and audio."""
    from transformers import AutoTokenizer, Gemma3Processor, Gemma4Processor, ProcessorMixin
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
    from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

    class ImagesOfGemma3(Gemma3Processor):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    class ImagesOfGemma4(Gemma4Processor):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

        def __init__(self, image_processor: Any, tokenizer: Any) -> None:
            for name in (*MARKS, *OTHER_MARKS):
                setattr(self, name, getattr(tokenizer, name))
                setattr(self, f"{name}_id", IDS[name])
            self.image_seq_length = image_processor.max_soft_tokens
            ProcessorMixin.__init__(self, image_processor=image_processor, tokenizer=tokenizer)

    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens=MARKS | OTHER_MARKS)
    if "gemma3" in folder:
        images = Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
        return ImagesOfGemma3(images, tokenizer, image_seq_length=TOKENS)
    return ImagesOfGemma4(Gemma4ImageProcessorPil(max_soft_tokens=70), tokenizer)


@cache
def install() -> None:
    """Makes the models loadable in this process; see vision.py."""
    with torchvision_importable():
        functional: Any = importlib.import_module("torchvision.transforms.v2.functional")
        functional.InterpolationMode = getattr(functional, "InterpolationMode", int)  # an annotation wants one
        from vllm.model_executor.models import gemma3_mm, gemma4_mm
    from vllm.model_executor.models.registry import ModelRegistry

    for kind, module in (("gemma3", gemma3_mm), ("gemma4", gemma4_mm)):
        ModelRegistry.register_model(ARCHITECTURES[kind], getattr(module, ARCHITECTURES[kind]))
        info = getattr(module, f"{kind.capitalize()}ProcessingInfo")
        info.get_hf_processor = lambda self, **_: processor(self.ctx.model_config.model)


def prompts(kind: str) -> list[dict[str, Any]]:
    """An image behind more text than the window, two images, one at the very start, and none at all."""
    mark = MARKS["boi_token" if kind == "gemma3" else "image_token"]
    sizes = [(SIDE, SIDE)] * 4 if kind == "gemma3" else [(224, 224), (100, 400), (160, 160), (300, 180)]
    first, second, third, fourth = (image(seed, *size) for seed, size in enumerate(sizes))
    return [
        {"prompt": f"{WORDS[:90]}{mark} what is it?", "multi_modal_data": {"image": first}},
        {"prompt": f"compare {mark} with {mark}: the lock", "multi_modal_data": {"image": [second, third]}},
        {"prompt": f"{mark}{WORDS[:40]}", "multi_modal_data": {"image": fourth}},
        {"prompt": WORDS[:100]},
    ]


def transformers_says(kind: str, folder: str, steps: int) -> tuple[list[list[int]], list[list[float]]]:
    """Of each prompt, `steps` greedy tokens and the log probabilities of the prompt's own tokens but the first."""
    import transformers

    model = getattr(transformers, ARCHITECTURES[kind]).from_pretrained(folder, dtype=torch.float32).eval()
    prepare = processor(folder)
    tokens, scores = [], []
    for one in prompts(kind):
        images = one.get("multi_modal_data", {}).get("image")
        given = prepare(text=[one["prompt"]], images=images and [images], return_tensors="pt", add_special_tokens=False)
        given = {name: value for name, value in given.items() if not name.startswith("num_")}
        length = given["input_ids"].shape[1]
        with torch.no_grad():
            logprobs = model(**given).logits[0, :-1].log_softmax(-1)
            made = model.generate(**given, max_new_tokens=steps, do_sample=False, eos_token_id=None)
        scores.append(logprobs.gather(1, given["input_ids"][0, 1:, None])[:, 0].tolist())
        tokens.append(made[0, length:].tolist())
    return tokens, scores
