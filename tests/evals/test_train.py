# SPDX-License-Identifier: Apache-2.0
"""The training's model computes what Transformers does, and the shipped checkpoints are what the training makes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

pytest.importorskip("transformers")
from evals.train import __main__ as training
from evals.train import check, model, shape
from rocmforge_plugin.evaluate import items

SHIPPED = sorted((Path(__file__).resolve().parents[2] / "evals" / "checkpoints").iterdir())


@pytest.mark.parametrize("arch", shape.ARCHITECTURES)
def test_the_model_is_the_architecture(arch: str, tmp_path: Path) -> None:
    """Random weights, and logits as large as a trained model's, so that a wrong router or rotation shows."""
    torch.manual_seed(3)
    network = model.Model(shape.shape(arch, 64, 96))
    with torch.no_grad():
        network.lm_head.weight.normal_(std=0.5)
        for parameter in network.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    training.save(network, tmp_path)
    assert training.agree(network, tmp_path) < 1e-4


def sizes(folder: Path) -> shape.Shape:
    """What the training was called with."""
    settings = json.loads((folder / "config.json").read_text())
    return shape.shape(settings["model_type"], settings["hidden_size"], settings["intermediate_size"])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_checkpoint_is_what_the_training_makes(folder: Path) -> None:
    assert shape.config(sizes(folder)) == json.loads((folder / "config.json").read_text())
    with safe_open(folder / "model.safetensors", "pt") as kept:
        found = {name: tuple(kept.get_slice(name).get_shape()) for name in kept.keys()}  # noqa: SIM118
    made = model.Model(sizes(folder)).state_dict()
    assert found == {name: tuple(tensor.shape) for name, tensor in made.items()}


class Logits(torch.nn.Module):
    """A Transformers model as `check` asks one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model(ids).logits


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_checkpoint_answers_in_transformers(folder: Path) -> None:
    network = Logits(folder)
    for name, make in items.TASKS.items():
        rng = random.Random(f"answers {name}")
        whole, letters = check.correct(network, [make(rng, length) for length in (16, 64, 256) for _ in range(4)])
        assert whole >= 0.8 and letters > 0.9, (name, whole, letters)
    assert check.bits_per_byte(network, 4) < 2
