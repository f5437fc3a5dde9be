# SPDX-License-Identifier: Apache-2.0
"""vLLM end to end on emulated AMD GPUs: what its layers launch is AMD machine code, executed on this CPU.

The same requests go through the CPU target's kernels, which compute the same in another order; the model in fp32
(Transformers) then scores the texts of both, and the rule is that of benchmarks/serving: errors of one size.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from vllm.platforms import current_platform

from benchmarks.serving import sameness
from benchmarks.serving.worker import exact_scores
from rocmforge_plugin import emulation
from tests import HANG
from tests.emulated import emulated, skip_unless_built
from tests.vllm.engines import LENGTHS, ROOT, Run, checkpoint, generated, prompt, run_ours

pytestmark = pytest.mark.skipif(not current_platform.is_cpu(), reason="emulates on vLLM's CPU platform")
LAYERS, TOKENS = 2, 16
PROMPTS = [prompt(length, start) for start, length in enumerate(LENGTHS)]
# Waves of 64 lanes with MFMA, of 32 with WMMA.
TARGETS = {"gfx942": "v_mfma_f32_16x16x16_bf16", "gfx1201": "v_wmma_f32_16x16x16_bf16"}


def model() -> str:
    """A tiny GLM-4 with heads of the released models' size."""
    return checkpoint("glm4", head_dim=128)


@pytest.fixture(scope="module", autouse=True)
def serving() -> Iterator[subprocess.Popen[str]]:
    """`make serve ONCE=1` of the small trained model on a gfx942, which loads while the other tests run.

    Its engine's process is the worker, too: 10 s less to start (tests/vllm/test_server.py has the usual processes).
    """
    skip_unless_built("gfx942")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(emulation.VARIABLE, "gfx942")
        patch.setenv("VLLM_LOGGING_LEVEL", "INFO")
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # which allows that executor
        patch.setenv("VLLM_CPU_NUM_OF_RESERVED_CPU", "1")  # for the client, as in the usual processes
        patch.setenv("PYTHONPATH", str(ROOT), prepend=":")
        command = [sys.executable, str(ROOT / "tools" / "serve.py"), "--once", "--", "--max-model-len", "512"]
        command += ["--distributed-executor-backend", "uni"]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with running:
        yield running
        running.terminate()


def continue_and_score(llm: Any) -> dict[str, Any]:
    """Greedy tokens for each prompt, and log probabilities of those and of the prompts, as `sameness` reads them."""
    from vllm import SamplingParams

    asked = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True, logprobs=0, prompt_logprobs=0)
    sequences, scores = [], []
    for row, result in zip(PROMPTS, llm.generate(PROMPTS, asked, use_tqdm=False), strict=True):
        made = generated(result.outputs[0])
        sequences.append({"prompt": row["prompt_token_ids"], "tokens": made.tokens, "logprobs": made.logprobs})
        places = zip(row["prompt_token_ids"][1:], result.prompt_logprobs[1:], strict=True)
        scores.append([place[token].logprob for token, place in places])
    return {"sequences": sequences, "scores": scores}


def with_exact_scores(run: Run) -> dict[str, Any]:
    """What came out, and what the model in fp32 thinks of it."""
    result = run.result
    exact = exact_scores(model(), [row["prompt"] + row["tokens"] for row in result["sequences"]])
    result["exact_scores"] = []
    for row, (chosen, best) in zip(result["sequences"], exact, strict=True):
        at = len(row["prompt"]) - 1
        row["exact"], row["best"] = chosen[at:], best[at:]
        result["exact_scores"].append(chosen[:at])
    return result


@pytest.fixture(scope="module")
def on_the_cpu() -> dict[str, Any]:
    """The requests through the CPU target."""
    return with_exact_scores(run_ours(model(), continue_and_score, "bfloat16"))


@pytest.mark.parametrize("target", TARGETS)
def test_glm4_answers_as_on_the_cpu(target: str, on_the_cpu: dict[str, Any]) -> None:
    """Eight requests at once, across page edges, one prefilled in chunks of 64 tokens beside running decodes."""
    skip_unless_built(target)
    with emulated(target):
        from amdgpu import gpu

        gpu.executed()  # forgets what came before
        ours = run_ours(model(), continue_and_score, "bfloat16")
        executed = gpu.executed()
    result = with_exact_scores(ours)
    errors = [sameness.errors_of(one) for one in (result, on_the_cpu)]
    assert sameness.verdict(errors[0], errors[1:]) == []
    same = sameness.agreement(result, on_the_cpu)
    # Where texts part, two tokens were as good as equally likely: their difference is no larger than that of rounding.
    assert same["largest_gap_at_parting"] <= 2 * errors[1]["decode"]["largest"] + 1e-5, same
    assert same["equal_tokens"] >= 0.5 * same["tokens"], same
    # 200 tokens take 4 chunks of at most 64, and then come 15 more steps: each layer runs in every one of them.
    assert ours.ran("attention_prefill") >= LAYERS * 4
    assert ours.ran("attention_decode") >= LAYERS * (TOKENS - 1)
    assert ours.ran("rotary_kv_write") >= LAYERS * (TOKENS + 3)
    # The launches that were counted executed that target's instructions, the matrix core's among them.
    assert {kernel for of, kernel in executed} == set(ours.launches) and {of for of, _ in executed} == {target}
    assert all(sum(counts.values()) >= ours.launches[kernel] for (_, kernel), counts in executed.items())
    for part in ("attention_prefill", "attention_decode"):
        counts = sum((c for (_, kernel), c in executed.items() if kernel.startswith(part)), Counter[str]())
        assert counts[TARGETS[target]] > 0, counts


def test_serve_answers_on_an_emulated_gpu(serving: subprocess.Popen[str]) -> None:
    """Every process of vLLM heeds the variable: the trained model copies what it is asked to, and AMD kernels ran."""
    said = serving.communicate(timeout=HANG)[0]
    assert serving.returncode == 0, said
    label = emulation.label("gfx942")
    assert f"{label}, gfx942:" in said, said  # the backend's line in the worker's log
    assert r"'C:Rocm4Gfx942+Gfx1201/PagedKv=' -> 'Rocm4Gfx942+Gfx1201/PagedKv\n'" in said, said
    assert "chat: 'Say hello to a GPU.' -> '" in said
    counted = re.search(rf"kernels that ran for these \d+ tokens, {re.escape(label)}:\n((?: +\d+  \w+\n?)+)", said)
    assert counted is not None, said
    counts = {name: int(count) for count, name in re.findall(r"(\d+)  (\w+)", counted[1])}
    for kernel in ("attention_prefill", "attention_decode", "attention_combine", "attention_plan", "rotary_kv_write"):
        assert sum(count for name, count in counts.items() if name.startswith(kernel)) > 0, counts
