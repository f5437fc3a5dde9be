# SPDX-License-Identifier: Apache-2.0
"""GLM's vision models in vLLM with generated images, also where torchvision is missing.

vLLM's modules of these models import torchvision's image processors. The CPU environment has no torchvision (its wheels
on PyPI want CUDA's torch), so an empty module stands in while they are imported, and images are prepared by
Transformers' PIL processor, which needs none of it. Both sides of a comparison prepare them so.
"""

from __future__ import annotations

import importlib.util
import json
import pathlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

MODULES = ("torchvision", "torchvision.transforms", "torchvision.transforms.v2", "torchvision.transforms.v2.functional")
ARCHITECTURES = {
    "Glm4vForConditionalGeneration": "glm4_1v",
    "Glm4vMoeForConditionalGeneration": "glm4_1v",
    "GlmOcrForConditionalGeneration": "glm_ocr",
}
# What the tests' engines share: prompts are prefilled in one step, so that steps can be counted.
SETTINGS = {"limit_mm_per_prompt": {"image": 2, "video": 0}, "max_num_batched_tokens": 512}


@contextmanager
def torchvision_importable() -> Iterator[None]:
    """torchvision as it is, or an empty one until the end."""
    if importlib.util.find_spec("torchvision") is not None:
        yield
        return
    # These ask whether torchvision is there when they are imported, and must not be told that it is.
    import transformers.image_processing_backends
    import transformers.models.glm4v.video_processing_glm4v  # noqa: F401

    parent = None
    for name in MODULES:
        sys.modules[name] = types.ModuleType(name)
        if parent is not None:
            setattr(parent, name.rpartition(".")[2], sys.modules[name])
        parent = sys.modules[name]
    try:
        yield
    finally:
        for name in MODULES:
            del sys.modules[name]


@cache
def install() -> None:
    """Makes the models loadable in this process. vLLM would look at them in another one first, which has no stand-in:
    registering the classes themselves spares it that.
    """
    with torchvision_importable():
        from vllm.model_executor.models import glm4_1v, glm_ocr
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture, module in ARCHITECTURES.items():
        ModelRegistry.register_model(
            architecture, getattr({"glm4_1v": glm4_1v, "glm_ocr": glm_ocr}[module], architecture)
        )
    glm4_1v.Glm4vProcessingInfo.get_hf_processor = lambda self, **_: processor(self.ctx.model_config.model)


@cache
def processor(folder: str) -> Any:
    """Glm4vProcessor without its part for videos."""
    from transformers import Glm4vProcessor
    from transformers.models.glm4v.image_processing_pil_glm4v import Glm4vImageProcessorPil

    return images_only_processor(Glm4vProcessor, Glm4vImageProcessorPil, folder)


@cache
def images_only_processor(kind: Any, image_processor: Any, folder: str) -> Any:
    """A model's processor without its part for videos, which needs torchvision."""
    from transformers import AutoTokenizer

    class ImagesOnly(kind):
        # vLLM asks it for the names of its settings.
        video_processor = type("NoVideos", (), {"valid_kwargs": type("NoSettings", (), {})})

        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    settings = json.loads((pathlib.Path(folder) / "preprocessor_config.json").read_text())
    return ImagesOnly(image_processor(size=settings["size"]), AutoTokenizer.from_pretrained(folder))


def image(seed: int, height: int, width: int) -> Any:
    """Seeded noise; multiples of 28 pixels are not resized."""
    import numpy
    from PIL import Image

    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8))


def prompts(seed: int = 0) -> list[dict[str, Any]]:
    """One wide image, a tall and a square one with text between, and no image at all."""
    mark = "<|begin_of_image|><|image|><|end_of_image|>"
    return [
        {"prompt": f"what does {mark} say?", "multi_modal_data": {"image": image(seed, 56, 112)}},
        {
            "prompt": f"compare {mark} with {mark}: the rotary angles of a row of pairs",
            "multi_modal_data": {"image": [image(seed + 1, 84, 28), image(seed + 2, 56, 56)]},
        },
        {"prompt": "the key opens page seven and the lock closes page nine"},
    ]
