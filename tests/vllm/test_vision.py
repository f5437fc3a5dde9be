# SPDX-License-Identifier: Apache-2.0
"""GLM-4.1V, GLM-4.5V and GLM-OCR end to end with generated images: positions in time, height and width in the language
model, rotary in the vision encoder.

In fp32 tokens equal the host's, kernels run exactly as often as layers x steps, and each of four faults, planted into
the layers of the running engine, shows. In bf16 an error against fp32 may be as large as the host's.
"""

from __future__ import annotations

import statistics
from functools import cache
from typing import Any

import pytest

import rocmforge_plugin
from tools.checkpoints import VISION

from . import vision
from .engines import Run, Sequence, checkpoint, engine, greedy, largest, run
from .faults import flipped, half_table, planted

LAYERS, ENCODER_LAYERS = 2, 2
STEPS = 6
ROUNDING = 5e-4  # of fp32 log probabilities: 4e-5 was seen, and 0.019 at least for the faults below


def describe(llm: Any) -> list[Sequence]:
    """Greedy tokens for each prompt; all prompts are prefilled at once, so there are as many steps as tokens."""
    return greedy(llm, vision.prompts(), max_tokens=STEPS)


def score(llm: Any) -> list[list[float]]:
    """Log probabilities of the prompts' own tokens but the first; what the encoder gets wrong shows behind an image."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, temperature=0.0)
    results = llm.generate(vision.prompts(), parameters, use_tqdm=False)
    return [
        [
            step[token].logprob
            for token, step in zip(result.prompt_token_ids[1:], result.prompt_logprobs[1:], strict=True)
        ]
        for result in results
    ]


def describe_and_score(llm: Any) -> tuple[list[Sequence], list[list[float]]]:
    return describe(llm), score(llm)


def agree(ours: list[Sequence], theirs: list[Sequence]) -> bool:
    """Equal tokens, and logprobs that differ by fp32 rounding only."""
    return all(
        one.tokens == other.tokens and apart([one.logprobs], [other.logprobs]) < ROUNDING
        for one, other in zip(ours, theirs, strict=True)
    )


def apart(ours: list[list[float]], theirs: list[list[float]]) -> float:
    """Largest difference of log probabilities."""
    return largest(abs(a - b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def truth(reference):
    """Function: a future of what the host says, computed once."""
    vision.install()
    reference.pool.submit(vision.install).result()

    @cache
    def start(kind: str, dtype: str):
        workload = describe_and_score if dtype == "float32" else score
        return reference.start(checkpoint(kind), workload, dtype, **vision.SETTINGS)

    return start


def host_says(truth, kind: str, dtype: str = "float32") -> Any:
    found: Run = truth(kind, dtype).result()
    assert found.launches == {}, "the reference ran rocmforge's kernels"
    return found.result


def counted(llm: Any) -> tuple[list[Sequence], int, dict[str, int]]:
    """What `describe` returns, how often the encoder ran, and the launches."""
    runs = []
    llm.llm_engine.reset_encoder_cache()
    handle = llm.apply_model(lambda model: model.visual.register_forward_hook(lambda *_: runs.append(1)))[0]
    rocmforge_plugin.reset_launches()
    result = describe(llm)
    handle.remove()
    return result, len(runs), {name: count for name, count in rocmforge_plugin.launches().items() if count}


def position_launches(launches: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in launches.items() if not name.startswith("attention")}


TEXT, ENCODER = "RocmForgeMRotaryEmbedding", "RocmForgeApplyRotaryEmb"
FAULTS = {
    "pair layout": (TEXT, {"is_neox_style": flipped}),
    "rotary part": (TEXT, {"cos_sin_cache": half_table, "mrope_section": lambda counts: [n // 2 for n in counts]}),
    "sections": (TEXT, {"mrope_section": lambda counts: list(reversed(counts))}),
    "encoder's pair layout": (ENCODER, {"is_neox_style": flipped}),
}


@pytest.mark.parametrize("kind", VISION)
@pytest.mark.parametrize("eager", [True, False], ids=("eager", "compiled"))
def test_tokens_and_launches(kind, eager, truth, monkeypatch):
    """The language model's rotary and KV write are one launch. The encoder is eager in both, which is vLLM's default.
    GLM-4.1V is compiled by inductor; the others' traced graphs run as they are, which takes seconds less.
    """
    monkeypatch.setenv("VLLM_CPU_CI_ENV", str(int(kind != "glm4v")))
    truth(kind, "float32")
    with engine(checkpoint(kind), "rocmforge", "float32", enforce_eager=eager, **vision.SETTINGS) as llm:
        result, encoder_runs, launches = counted(llm)
    assert agree(result, host_says(truth, kind)[0])
    assert encoder_runs > 0
    assert position_launches(launches) == {
        "mrope_kv_write_v16_float": LAYERS * STEPS,
        "rotary_v16_float": ENCODER_LAYERS * encoder_runs,
    }
    assert launches["attention_decode1_float_d128"] >= LAYERS * (STEPS - 1)


@pytest.mark.parametrize("kind", VISION)
def test_positions_alone_and_faults(kind, truth):
    """Attention stays the host's, rotary is its own launch; four faults in turn."""
    truth(kind, "float32")
    with engine(checkpoint(kind), "CPU_ATTN", "float32", **vision.SETTINGS) as llm:
        result, encoder_runs, launches = counted(llm)
        faulty = {}
        for name, (layer, changes) in FAULTS.items():
            with planted(llm, layer, changes):
                llm.llm_engine.reset_encoder_cache()
                faulty[name] = score(llm)
        llm.llm_engine.reset_encoder_cache()
        healed = score(llm)
    tokens, scores = host_says(truth, kind)
    assert agree(result, tokens) and apart(healed, scores) < ROUNDING
    assert launches == {"mrope_v16_float": LAYERS * STEPS, "rotary_v16_float": ENCODER_LAYERS * encoder_runs}
    found = {name: apart(rows, scores) for name, rows in faulty.items()}
    assert min(found.values()) > 20 * ROUNDING, found


@pytest.mark.parametrize("kind", VISION)
def test_bf16_errors_are_rounding(kind, truth):
    truth(kind, "bfloat16")
    ours = run(checkpoint(kind), "rocmforge", "bfloat16", score, vision.SETTINGS)
    assert ours.ran("mrope_kv_write") > 0 and ours.ran("rotary_v16") > 0
    exact = host_says(truth, kind)[1]
    errors = [
        [abs(a - b) for row, right in zip(rows, exact, strict=True) for a, b in zip(row, right, strict=True)]
        for rows in (ours.result, host_says(truth, kind, "bfloat16"))
    ]
    assert len(errors[0]) > 100
    assert statistics.mean(errors[0]) <= 2 * statistics.mean(errors[1]) + 1e-5
    assert largest(errors[0]) <= 2 * largest(errors[1]) + 1e-5
