# SPDX-License-Identifier: Apache-2.0
"""`rocmforge doctor` and `rocmforge selftest`."""

import torch

from rocmforge_plugin import cli, selftest
from rocmforge_plugin.ops.attention import paged_attention

CPU = torch.device("cpu")


def named(*parts):
    return [case for case in selftest.cases(CPU) if all(part in case.name for part in parts)]


def test_every_kind_of_operation_is_covered():
    names = [case.name for case in selftest.cases(CPU)]
    for kind in (
        "causal mask",
        "rotary NeoX",
        "rotary GPT-J",
        "KV write",
        "latent KV write",
        "attention decode",
        "attention prefill",
        "attention mixed",
        "attention window",
        "attention sinks",
        *(f"attention of {kind}" for kind in selftest.KINDS),
        "latent attention",
        "varlen attention",
    ):
        assert sum(name.startswith(kind) for name in names) >= 3, kind  # bfloat16, float16 and the CPU's float32
    assert len(set(names)) == len(names)


def test_selftest_passes(monkeypatch):
    lines: list[str] = []
    few = (
        named("bfloat16", "128")
        + named("mask")
        + named("rotary", "float16")
        + named("KV write")
        + named("latent", "16")
        + named("attention of", "float16")
        + named("both sides", "bfloat16")
    )
    monkeypatch.setattr(selftest, "cases", lambda device: few)
    assert selftest.run(CPU, lines.append) == 0
    assert lines[-1] == f"{len(few)} of {len(few)} cases passed" and all(line.startswith("ok") for line in lines[1:-1])


def test_selftest_sees_a_kernel_that_does_nothing(monkeypatch):
    monkeypatch.setattr(selftest, "paged_attention", lambda *_, **__: None)
    (case,) = named("attention decode 8/8 x 64 bfloat16")
    assert "largest error nan" in (selftest.check(case) or "")


def test_selftest_sees_a_kernel_that_is_a_little_wrong(monkeypatch):
    def scaled(*arguments, scale, **rest):
        paged_attention(*arguments, scale=scale * 1.05, **rest)

    monkeypatch.setattr(selftest, "paged_attention", scaled)
    (case,) = named("attention decode 8/8 x 64 float32")
    assert "largest error" in (selftest.check(case) or "")


def test_selftest_sees_that_nothing_was_launched(monkeypatch):
    case = selftest.Case("torch", lambda: (torch.ones(2),) * 3)
    assert selftest.check(case) == "no kernel was launched"


def test_doctor_says_what_vllm_takes():
    lines: list[str] = []
    assert cli.doctor(lines.append) == 0
    text = "\n".join(lines)
    for part in (
        "rocmforge 0.",
        "torch: ",
        "vllm: ",
        "code on",
        "--attention-backend rocmforge gives",
        "head sizes: multiples of 8 from 32 to 256, and 512",
    ):
        assert part in text, part


def test_doctor_fails_where_no_kernels_are_built(monkeypatch, tmp_path):
    from rocmforge_plugin import device

    monkeypatch.setenv("ROCMFORGE_KERNELS", str(tmp_path))
    monkeypatch.setattr(device, "_open_devices", {})
    lines: list[str] = []
    assert cli.doctor(lines.append) == 1
    text = "\n".join(lines)
    assert "rocmforge has no kernels for" in text and str(tmp_path) in text and "ROCMFORGE_TARGETS=" in text
