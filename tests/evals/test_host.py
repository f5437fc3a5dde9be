# SPDX-License-Identifier: Apache-2.0
"""Which backend of vLLM's stands as the reference, and that what is set for it is what makes it right."""

from __future__ import annotations

import pytest

pytest.importorskip("vllm")
from rocmforge_plugin.evaluate.host import Host, host
from tests.vllm.engines import checkpoint

OFF = {"custom_ops": ["-rotary_embedding"]}


@pytest.mark.parametrize(
    ("cpu", "as_latent", "backend"),
    [(True, False, "CPU_ATTN"), (True, True, "CPU_MLA"), (False, False, "TRITON_ATTN"), (False, True, "TRITON_MLA")],
)
def test_backend(cpu: bool, as_latent: bool, backend: str) -> None:
    assert Host(cpu, True, as_latent).backend == backend


@pytest.mark.parametrize(
    ("cpu", "latent", "given", "made"),
    [
        (True, True, {}, OFF),
        (True, True, {"custom_ops": ["-silu_and_mul"]}, {"custom_ops": ["-silu_and_mul", "-rotary_embedding"]}),
        (True, True, {"custom_ops": ["none"], "mode": 0}, {"custom_ops": ["none"], "mode": 0}),
        (True, False, {}, {}),
        (False, True, {}, {}),
    ],
)
def test_correction(cpu: bool, latent: bool, given: dict[str, object], made: dict[str, object]) -> None:
    engine = {"compilation_config": given, "seed": 0} if given else {"seed": 0}
    assert Host(cpu, latent, latent).corrected(engine) == ({"compilation_config": made} if made else {}) | {"seed": 0}


def test_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-eval's own arguments are none of vLLM's."""
    kept, latent = checkpoint("glm4"), checkpoint("glm4_moe_lite")
    engine = {"max_model_len": 64, "data_parallel_size": 1, "add_bos_token": False}
    found = host(kept, engine), host(latent, engine)
    assert [(one.latent, one.as_latent) for one in found] == [(False, False), (True, True)]
    monkeypatch.setenv("VLLM_MLA_DISABLE", "1")
    found = host(kept, engine), host(latent, engine)
    assert [(one.latent, one.as_latent) for one in found] == [(False, False), (True, False)]
