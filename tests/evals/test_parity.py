# SPDX-License-Identifier: Apache-2.0
"""The short form of `rocmforge eval` on this machine: rocmforge passes, planted faults do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm")
pytest.importorskip("lm_eval")
from vllm.platforms import current_platform

from rocmforge_plugin.evaluate import items, rule
from rocmforge_plugin.evaluate.records import Run
from tests import HANG

#: rocmforge has float32 on CPUs alone, and the planted faults take the place of vLLM's CPU attention.
on_cpus = pytest.mark.skipif(not current_platform.is_cpu(), reason="asks vLLM's CPU platform in float32")
ROOT = Path(__file__).resolve().parents[2]
EVALS = ROOT / "evals"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`rocmforge eval` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "rocmforge_plugin.evaluate.command", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
    )


@on_cpus
@pytest.mark.parametrize(
    ("model", "reference"), [("glm4-tiny", "CPUAttentionBackendImpl"), ("glm4-moe-lite-tiny", "CPUMLAImpl")]
)
def test_rocmforge_answers_as_the_reference_does(model: str, reference: str, tmp_path: Path) -> None:
    done = command("--model", model, "--size", "smoke", "--dtype", "float32", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["verdict"] == "SAME"
    leg = found["legs"][0]
    layers = leg["candidate"]["about"]["layers"].split(", ")
    assert all(name.startswith("rocmforge_plugin.") for name in layers)
    assert leg["reference"]["about"]["layers"].endswith(f".{reference}")
    decoding = leg["candidate"]["launches"]["decode"]
    assert any(name.startswith("attention_decode") for name in decoding) and not leg["reference"]["launches"]["decode"]
    right = {task: scores.get("exact_match", scores.get("acc")) for task, scores in leg["candidate"]["scores"].items()}
    right = {task: share for task, share in right.items() if share is not None}
    assert len(right) == 2 * len(items.TASKS) and min(right.values()) >= 0.9, right
    assert leg["candidate"]["scores"]["rocmforge_text"]["bits_per_byte"] < 2.6


@on_cpus
@pytest.mark.parametrize(("model", "faults"), [("glm4-tiny", ("scale_2",)), ("glm4-moe-lite-tiny", ("scale_2",))])
def test_planted_faults_are_caught_and_clean_variants_are_not(
    model: str, faults: tuple[str, ...], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            str(EVALS / "calibrate.py"),
            "run",
            "--dtype",
            "float32",
            "--size",
            "smoke",
            "--seeds",
            "1",
            "--model",
            str(EVALS / "checkpoints" / model),
            "--out",
            str(tmp_path),
            "--faults",
            *faults,
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=HANG,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    reference = Run.load(tmp_path / "reference.float32.20.json.gz")
    clean = list(tmp_path.glob("clean.*.json.gz"))
    assert len(clean) == 5  # two other orders, and three ways to compute the same
    for path in clean:
        judged = rule.judge(reference, Run.load(path), launches=False)
        # Probabilities rounded to bfloat16 are a loss of precision in a float32 engine.
        assert judged.same == ("rounded" not in path.name), (path.name, judged.failures)
    for fault in faults:
        for phase, other in (("prefill", None), ("decode", "prefill"), ("both", None)):
            judged = rule.judge(
                reference, Run.load(tmp_path / f"fault.float32.{fault}.{phase}.json.gz"), launches=False
            )
            assert judged.failures, f"{fault} in {phase} went unnoticed"
            if other:
                assert not [check for check in judged.failures if check.name.startswith(other)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dtype", "int8"), "there is no rule for it"),
        (("--engine", "nonsense"), "expected KEY=VALUE"),
        (("--url", "http://127.0.0.1:9", "--dtype", "float32,bfloat16"), "a server runs in one dtype"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = command(*arguments, "--out", str(tmp_path))
    assert done.returncode == 2 and said in done.stderr


def test_a_hub_out_of_reach_points_to_the_offline_default(tmp_path: Path) -> None:
    from rocmforge_plugin.evaluate.command import HUB_ADVICE, Jobs

    log = tmp_path / "worker.log"
    log.write_text("Traceback\nhuggingface_hub.errors.LocalEntryNotFoundError: cannot find the requested files\n")
    said = Jobs.explain("CPU_ATTN", log)
    assert HUB_ADVICE in said and "LocalEntryNotFoundError" in said and str(log) in said
    log.write_text("ValueError: rocmforge cannot serve this attention layer: sinks\n")
    assert HUB_ADVICE not in Jobs.explain("rocmforge", log)
