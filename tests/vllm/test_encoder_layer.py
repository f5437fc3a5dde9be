# SPDX-License-Identifier: Apache-2.0
"""The layer in the place of vLLM's MMEncoderAttention: its results, how often it plans, and when it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.config import AttentionConfig, CompilationConfig, VllmConfig, set_current_vllm_config
from vllm.model_executor.custom_op import op_registry_oot
from vllm.model_executor.layers.attention.mm_encoder_attention import MMEncoderAttention
from vllm.v1.attention.backends.registry import AttentionBackendEnum

import rocmforge_plugin
from rocmforge_plugin.vllm.encoder import choice, layer, plans
from rocmforge_plugin.vllm.encoder.layer import EncoderLayer
from rocmforge_plugin.vllm.log import logger

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
CUTS = (0, 7, 20, 20, 50)  # an empty sequence among them


@contextmanager
def building(backend: str | None = "ROCMFORGE", dtype: torch.dtype = torch.float32, **settings: Any) -> Iterator[Any]:
    """As while vLLM builds a model."""
    rocmforge_plugin.register()
    before = torch.get_default_dtype()
    config = VllmConfig(attention_config=AttentionConfig(backend=backend), **settings)
    torch.set_default_dtype(dtype)
    try:
        with set_current_vllm_config(config):
            yield config
    finally:
        torch.set_default_dtype(before)


def made(heads: int = 4, size: int = 64, kv_heads: int | None = None, **how: Any) -> Any:
    with building(**how):
        return MMEncoderAttention(heads, size, num_kv_heads=kv_heads)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    plans._shared.clear()  # of layers that nobody has any more, and the garbage collector has not met
    rocmforge_plugin.reset_launches()


def fused(one: Any, batch: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value as slices of one product, [batch, tokens, heads * head_size] each."""
    sizes = [heads * one.head_size for heads in (one.num_heads, one.num_kv_heads, one.num_kv_heads)]
    q, k, v = torch.randn(batch, tokens, sum(sizes), dtype=one.dtype).split(sizes, dim=-1)
    return q, k, v


def apart(x: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, heads * 64] with the heads apart."""
    return x.unflatten(-1, (-1, 64))


def cuts(*ends: int) -> torch.Tensor:
    return torch.tensor(ends, dtype=torch.int32)


def right(one: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu: torch.Tensor | None = None) -> torch.Tensor:
    """By vLLM's own attention, in fp64."""
    return one._forward_sdpa(q.double(), k.double(), v.double(), cu)


def assert_close(one: Any, ours: torch.Tensor, wanted: torch.Tensor) -> None:
    assert ours.dtype == one.dtype
    torch.testing.assert_close(ours.double(), wanted, atol=TOLERANCE[one.dtype], rtol=0)


def launched(part: str) -> int:
    count = sum(times for name, times in rocmforge_plugin.launches().items() if part in name)
    rocmforge_plugin.reset_launches()
    return count


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (3, 1)])
@pytest.mark.parametrize("size", [64, 72, 80, 96, 128])
def test_results(size, heads, kv_heads, dtype):
    """Slices of a fused product, heads together and apart: one launch, and no copy of what is strided."""
    one = made(heads, size, kv_heads, dtype=dtype)
    q, k, v = fused(one, 1, CUTS[-1])
    wanted = right(one, q, k, v, cuts(*CUTS))
    ours = one(q, k, v, cuts(*CUTS), torch.tensor(0))
    assert ours.shape == q.shape and launched("attention_prefill") == 1
    assert_close(one, ours, wanted)
    with_heads = [x.unflatten(-1, (-1, size)) for x in (q, k, v)]
    ours = one(*with_heads, cu_seqlens=cuts(*CUTS), max_seqlen=None)
    assert ours.shape == with_heads[0].shape
    assert_close(one, ours.flatten(2), wanted)
    assert one._rows(k, kv_heads).data_ptr() == k.data_ptr()


def test_a_batch_of_sequences_of_one_length():
    one = made(kv_heads=2)
    q, k, v = fused(one, 3, 17)
    assert_close(one, one(q, k, v), right(one, q, k, v))
    short = q[:, :5]  # as many keys as before: another attends to them, from gaps between the batch's queries
    assert_close(one, one(short, k, v), right(one, short, k, v))
    assert one(q[:0], k[:0], v[:0]).shape == (0, *q.shape[1:])


def test_what_the_kernels_cannot_read_is_copied():
    """Batches inside of tokens, heads that do not begin at 16 bytes, and elements that are not side by side."""
    one = made(dtype=torch.float16)
    q, k, v = (x.transpose(0, 1) for x in fused(one, 9, 3))
    odd = torch.randn(3, 9, 4 * 64 + 1, dtype=one.dtype)[..., 1:]
    turned = torch.randn(3, 4 * 64, 9, dtype=one.dtype).transpose(1, 2)
    for query, key in ((q, k), (odd, k), (q, turned)):
        assert_close(one, one(apart(query), apart(key), apart(v)).flatten(2), right(one, query, key, v))


def test_one_plan_for_all_layers_of_a_run():
    layers = [made() for _ in range(3)]
    for ends in (CUTS, (0, 1, 50), (0, 50)):
        cu, inputs = cuts(*ends), fused(layers[0], 1, 50)
        for one in layers:
            assert_close(one, one(*inputs, cu), right(one, *inputs, cu))
        assert launched("attention_plan") == 1


def test_lengths_that_change_in_place_are_planned_for():
    """The tensor of a captured graph stays what it is, while its lengths come and go."""
    layers, cu = [made() for _ in range(2)], cuts(*CUTS)
    for ends in (CUTS, (0, 50, 50, 50, 50), (0, 3, 3, 9, 50)):
        cu.copy_(cuts(*ends))
        inputs = fused(layers[0], 1, 50)
        for one in layers:
            assert_close(one, one(*inputs, cu), right(one, *inputs, cu))
        assert launched("attention_plan") == 1


def test_layers_of_a_run_may_cut_the_tokens_in_two_ways():
    """As in Qwen2.5-VL, some in windows and some in full: a plan for each way, and both at a time."""
    layers = [made() for _ in range(5)]
    ways = (0, 1, 0, 0, 1)
    for _ in range(3):
        pair, inputs = (cuts(*CUTS), cuts(0, 50)), fused(layers[0], 1, 50)
        for one, way in zip(layers, ways, strict=True):
            assert_close(one, one(*inputs, pair[way]), right(one, *inputs, pair[way]))
        assert launched("attention_plan") == 2
    assert len(layers[0]._plans._planners) == 2


def test_a_layer_that_is_called_for_each_image_in_turn():
    layers, inputs = [made() for _ in range(3)], fused(made(), 1, 50)
    images = (cuts(*CUTS), cuts(0, 50), cuts(0, 25, 50))
    for one in layers:
        for cu in images:
            assert_close(one, one(*inputs, cu), right(one, *inputs, cu))


def test_batches_of_all_sizes_take_few_buffers():
    one = made()
    for tokens, sequences in ((9, 1), (200, 2), (40, 20), (100, 50), (200, 2), (40, 20)) * 2:
        ends = torch.linspace(0, tokens, sequences + 1).int()
        inputs = fused(one, 1, tokens)
        assert_close(one, one(*inputs, ends), right(one, *inputs, ends))
    assert len(one._plans._planners) <= 4


def test_lengths_stay_on_the_device(monkeypatch):
    """Nothing is read from a tensor: on a GPU that would wait for all that was launched."""
    one, inputs = made(), fused(made(), 1, 50)
    cu, wanted = cuts(*CUTS), right(made(), *inputs, cuts(*CUTS))

    def waits(*_: Any) -> None:
        raise AssertionError("the host asked the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__index__"):
            patch.setattr(torch.Tensor, name, waits)
        ours = one(*inputs, cu.long())  # which have to be converted
    assert_close(one, ours, wanted)


def test_compiled_it_is_one_op():
    """Of a graph without breaks, whatever the layer's number."""
    layers, inputs = [made(kv_heads=2) for _ in range(2)], fused(made(kv_heads=2), 1, 50)

    def run(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cu: torch.Tensor) -> torch.Tensor:
        return layers[1](layers[0](q, k, v, cu), k, v, cu)

    cu = cuts(*CUTS)
    wanted = run(*inputs, cu)
    launched("")
    ours = torch.compile(run, fullgraph=True, backend="aot_eager")(*inputs, cu)
    torch.testing.assert_close(ours, wanted)
    assert launched("attention_prefill") == 2


def test_whispers_encoder_has_a_class_of_its_own():
    from vllm.model_executor.models.whisper import WhisperEncoderAttention

    with building():
        one = WhisperEncoderAttention(4, 64)
    assert isinstance(one, EncoderLayer) and one.kernels
    q, k, v = fused(one, 1, 30)
    assert_close(one, one(q[0], k[0], v[0])[None], right(one, q, k, v))
    assert launched("attention_prefill") == 1


# When it is used.


@pytest.fixture
def warnings(monkeypatch):
    seen: list[str] = []
    monkeypatch.setattr(logger, "warning_once", lambda text, *values: seen.append(text % values))
    return seen


@pytest.fixture
def encoders(monkeypatch):
    """Function: the backend that a user names for encoders."""

    def name(backend: str) -> None:
        named = AttentionBackendEnum[backend]
        monkeypatch.setattr(choice, "named", lambda: named.name)

    rocmforge_plugin.register()
    return name


def uses_kernels(one: Any) -> bool:
    q, k, v = fused(one, 1, 20)
    torch.testing.assert_close(one(q, k, v), one._forward_sdpa(q, k, v), atol=1e-5, rtol=0)
    return launched("attention_prefill") == 1


def test_another_backend_keeps_vllms_own():
    assert uses_kernels(made())
    assert not uses_kernels(made(backend=None))
    assert not uses_kernels(made(backend="CPU_ATTN"))


def test_the_backend_that_is_named_for_encoders_decides(encoders):
    encoders("TORCH_SDPA")
    assert not uses_kernels(made())
    encoders("ROCMFORGE")
    assert uses_kernels(made(backend="CPU_ATTN"))


def test_the_name_reaches_the_layer_through_vllms_configuration():
    from vllm.platforms import current_platform

    with building() as config:
        config.model_config = SimpleNamespace(
            multimodal_config=SimpleNamespace(mm_encoder_attn_backend=AttentionBackendEnum["ROCMFORGE"])
        )
        assert choice.named() == "ROCMFORGE"
    host = current_platform.get_vit_attn_backend(64, torch.float32, AttentionBackendEnum["ROCMFORGE"])
    assert host == current_platform.get_vit_attn_backend(64, torch.float32)


def test_switched_off_by_name():
    assert not uses_kernels(made(compilation_config=CompilationConfig(custom_ops=["none", "-mm_encoder_attn"])))
    assert uses_kernels(made(compilation_config=CompilationConfig(custom_ops=["none"])))


def test_heads_without_a_kernel_are_vllms_and_the_log_says_so(warnings, encoders):
    assert not uses_kernels(made(size=36))
    assert "TORCH_SDPA" in warnings[0] and "head_size is 36" in warnings[0]
    encoders("ROCMFORGE")
    with pytest.raises(ValueError, match=r"head_size is 36.*leave out --mm-encoder-attn-backend"):
        made(size=36)


@pytest.mark.parametrize(
    ("host", "quantized", "reason"),
    [("FLASHINFER", False, "--mm-encoder-attn-backend"), ("TORCH_SDPA", True, "--mm-encoder-attn-dtype")],
)
def test_reasons_beside_the_kernels(host, quantized, reason):
    (said,) = choice.refusals(made()._problem, AttentionBackendEnum[host], quantized)
    assert reason in said


def test_another_dtype_than_the_models_is_vllms(warnings):
    one = made(dtype=torch.bfloat16)
    q, k, v = (x.float() for x in fused(one, 1, 20))
    assert torch.equal(one(q, k, v), one._forward_sdpa(q, k, v))
    assert launched("attention") == 0 and "float32" in warnings[0]


def test_a_layer_of_another_plugin_stays(monkeypatch):
    from rocmforge_plugin.vllm.encoder import layers

    class Theirs(MMEncoderAttention):
        pass

    seen: list[str] = []
    monkeypatch.setattr(logger, "warning", lambda text, *values: seen.append(text % values))
    monkeypatch.setitem(op_registry_oot, "MMEncoderAttention", Theirs)
    layers.register()
    assert op_registry_oot["MMEncoderAttention"] is Theirs and "Theirs" in seen[0]
    assert layer.RocmForgeMMEncoderAttention.name == "mm_encoder_attn"
