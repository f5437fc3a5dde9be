# SPDX-License-Identifier: Apache-2.0
"""Latent attention under the one name: selection by vLLM's own platforms, its prefill, and every refusal."""

import sys
from types import SimpleNamespace

import pytest
import torch
import vllm.platforms
from vllm.config import AttentionConfig
from vllm.v1.attention.backends.mla.prefill import selector
from vllm.v1.attention.backends.mla.prefill.base import MLADimensions
from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.attention.selector import AttentionSelectorConfig

from rocmforge_plugin.vllm import BACKEND_PATH, MLA_PATH, NAME, register, selection
from rocmforge_plugin.vllm.backend.target import ROCM_ARCHS
from rocmforge_plugin.vllm.mla import eligibility

ARCHS = [arch for archs in ROCM_ARCHS.values() for arch in archs]
FLASH = AttentionSelectorConfig(
    head_size=576, dtype=torch.bfloat16, kv_cache_dtype="auto", block_size=None, use_mla=True
)
DENSE = FLASH._replace(head_size=128, use_mla=False)
# Heads, and (kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim, v_head_dim).
MODELS = {
    **{f"GLM-4.7-Flash at TP {20 // heads}": (heads, (512, 192, 64, 256)) for heads in (20, 10, 5)},
    **{f"DeepSeek-V3 at TP {128 // heads}": (heads, (512, 128, 64, 128)) for heads in (128, 64, 32, 16)},
    "DeepSeek-V2-Lite": (16, (512, 128, 64, 128)),
    "Kimi-K2 at TP 8": (8, (512, 128, 64, 128)),
    "Mistral Small 4": (32, (256, 64, 64, 128)),
}


def arguments(heads, dims, **changes):
    """What vLLM's layer gives an implementation."""
    lora, nope, rope, value = dims
    return {
        "num_heads": heads,
        "head_size": lora + rope,
        "scale": 0.1,
        "num_kv_heads": 1,
        "alibi_slopes": None,
        "sliding_window": None,
        "kv_cache_dtype": "auto",
        "logits_soft_cap": None,
        "attn_type": "decoder",
        "kv_sharing_target_layer_name": None,
        "q_lora_rank": 768,
        "kv_lora_rank": lora,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "qk_head_dim": nope + rope,
        "v_head_dim": value,
        "kv_b_proj": object(),
        "indexer": None,
    } | changes


def dimensions(dims):
    return MLADimensions(qk_nope_head_dim=dims[1], qk_rope_head_dim=dims[2], v_head_dim=dims[3])


def asked_for(backend, **kinds):
    """A configuration with that choice of the user's."""
    return SimpleNamespace(model_config=None, attention_config=AttentionConfig(backend=backend, backend_per_kind=kinds))


@pytest.fixture
def chosen(monkeypatch):
    """Function: the prefill class that vLLM's selector finds on a platform for a configuration."""
    register.register()

    def choose(platform, config, dims=(512, 192, 64, 256)):
        monkeypatch.setattr(vllm.platforms, "current_platform", platform)
        monkeypatch.setattr(selection, "get_current_vllm_config_or_none", lambda: config)
        config.model_config = SimpleNamespace(
            dtype=torch.bfloat16, hf_text_config=SimpleNamespace(**vars(dimensions(dims)))
        )
        selector._auto_select_mla_prefill_backend.cache_clear()
        return selector.get_mla_prefill_backend(config)

    yield choose
    selector._auto_select_mla_prefill_backend.cache_clear()


@pytest.mark.parametrize("arch", ARCHS)
def test_every_architecture_serves_every_model(arch, rocm, chosen):
    platform, member = rocm(arch), register.backend_member()
    for name, (heads, dims) in MODELS.items():
        layer = FLASH._replace(head_size=dims[0] + dims[2])
        assert platform.get_attn_backend_cls(member, layer, num_heads=heads) == MLA_PATH, name
        assert eligibility.layer_refusals(arguments(heads, dims), "amd") == [], name
        assert chosen(platform, asked_for("rocmforge"), dims).get_name() == NAME, name
    assert platform.get_attn_backend_cls(member, DENSE, num_heads=32) == BACKEND_PATH


def test_without_the_flag_a_radeon_has_no_prefill(rocm, chosen, monkeypatch):
    """What vLLM itself has there, so that the class above is ours by the choice of the backend alone."""
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    platform = rocm("gfx1100")
    for config in (asked_for(None), asked_for("TRITON_MLA"), asked_for("rocmforge", mla_attention="TRITON_MLA")):
        with pytest.raises(ValueError, match="No valid MLA prefill backend"):
            chosen(platform, config)
    assert chosen(platform, asked_for(None, mla_attention="rocmforge")).get_name() == NAME
    assert chosen(platform, asked_for("TRITON_ATTN", mla_attention="rocmforge")).get_name() == NAME


def test_a_prefill_that_the_user_names_goes_before(rocm, chosen):
    platform, config = rocm("gfx942"), asked_for("TRITON_MLA")
    config.attention_config.mla_prefill_backend = register.prefill_member()
    platform.get_device_capability = lambda: None
    assert chosen(platform, config).get_name() == NAME
    with pytest.raises(ValueError, match=r"\(160, 128\) .*has no kernel; it must be one of"):
        chosen(platform, config, (512, 96, 64, 128))


def test_a_choice_is_not_kept_for_other_backends(chosen, monkeypatch):
    """vLLM remembers it by dims; models of several backends in one process must not get each other's."""
    platform = vllm.platforms.current_platform
    ours, theirs = asked_for("rocmforge"), asked_for("CPU_MLA")
    assert chosen(platform, ours).get_name() == NAME
    made = chosen(platform, ours)(
        num_heads=4, scale=1.0, kv_lora_rank=512, qk_nope_head_dim=192, qk_rope_head_dim=64, v_head_dim=256,
        vllm_config=ours,
    )  # fmt: skip
    assert made.get_name() == NAME
    monkeypatch.setattr(selection, "get_current_vllm_config_or_none", lambda: theirs)
    theirs.model_config = ours.model_config
    assert selector.get_mla_prefill_backend(theirs).get_name() == "CPU_SDPA_MLA"


def test_selection_on_the_cpu():
    register.register()
    platform, member = vllm.platforms.current_platform, register.backend_member()
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        assert platform.get_attn_backend_cls(member, FLASH._replace(dtype=dtype), num_heads=5) == MLA_PATH
    assert "mla" in platform.get_attn_backend_cls(AttentionBackendEnum.CPU_MLA, FLASH)
    assert "mla" in platform.get_attn_backend_cls(None, FLASH)
    assert platform.get_attn_backend_cls(member, DENSE, num_heads=5) == BACKEND_PATH


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"use_sparse": True}, "sparse latent attention, as of GLM-5 and DeepSeek-V3.2 .*leave out"),
        ({"kv_cache_dtype": "fp8"}, "fp8 .*use --kv-cache-dtype bfloat16"),
        ({"kv_cache_dtype": "fp8_ds_mla"}, "fp8_ds_mla .*use --kv-cache-dtype bfloat16"),
        ({"head_size": 160}, "160 elements .*one of 576, 512, 320"),
        ({"block_size": 24}, "--block-size.*multiple of 16"),
        ({"use_dcp": True}, "--decode-context-parallel-size 1"),
        ({"use_pcp": True}, "--prefill-context-parallel-size 1"),
        ({"dtype": torch.float32}, "float32.*bfloat16 or float16 on the amd target"),
        ({"has_sink": True}, "has_sink"),
        ({"has_sliding_window": True}, "has_sliding_window"),
        ({"use_non_causal": True}, "use_non_causal"),
        ({"use_mm_prefix": True}, "use_mm_prefix"),
        ({"attn_type": "encoder_decoder"}, "encoder_decoder"),
        ({"use_batch_invariant": True}, "VLLM_BATCH_INVARIANT"),
        ({"attn_type": "encoder_only"}, "encoder_only"),
    ],
)
def test_refusals_of_the_selection(change, named, rocm):
    with pytest.raises(ValueError, match=f"not valid for this configuration.*{named}"):
        rocm("gfx942").get_attn_backend_cls(register.backend_member(), FLASH._replace(**change), num_heads=20)


def test_too_many_heads_are_refused(rocm):
    with pytest.raises(ValueError, match="num_heads is 129 beside num_kv_heads 1"):
        rocm("gfx942").get_attn_backend_cls(register.backend_member(), FLASH, num_heads=129)


@pytest.mark.parametrize(
    ("dims", "changes", "named"),
    [
        ((448, 192, 64, 256), {}, r"\(512, 448\) .*one of \(576, 512\), \(512, 512\), \(320, 256\)"),
        ((512, 192, 64, 128), {}, r"\(256, 128\) .*\(256, 256\), \(192, 128\), \(128, 128\), \(96, 64\)"),
        ((512, 192, 64, 256), {"sliding_window": 128}, "sliding_window=128"),
        ((512, 192, 64, 256), {"logits_soft_cap": 30.0}, "logits_soft_cap=30.0"),
        ((512, 192, 64, 256), {"indexer": object()}, "indexer"),
        ((512, 192, 64, 256), {"sinks": 1.0}, "sinks=1.0 is unknown"),
        ((512, 192, 64, 256), {"kv_cache_dtype": "fp8"}, "--kv-cache-dtype"),
        ((512, 192, 64, 256), {"kv_sharing_target_layer_name": "other"}, "kv_sharing_target_layer_name"),
        ((512, 192, 64, 256), {"num_heads": 130}, "num_heads is 130"),
    ],
)
def test_refusals_of_a_layer(dims, changes, named):
    from rocmforge_plugin.vllm.mla.impl import RocmForgeMLAImpl

    with pytest.raises(ValueError, match=f"cannot serve this layer of latent attention: .*{named}") as raised:
        RocmForgeMLAImpl(**arguments(20, dims, **changes))
    assert "; " not in str(raised.value).removesuffix(str(raised.value).rpartition("; ")[2]).removesuffix("; ")


def test_prefills_that_have_no_kernel_are_refused(chosen):
    with pytest.raises(ValueError, match=r"ROCMFORGE has no MLA prefill .*\(160, 128\) .*it must be one of"):
        chosen(vllm.platforms.current_platform, asked_for("rocmforge"), (512, 96, 64, 128))


def test_the_table_knows_every_field_of_the_selector():
    ours = {rule.setting for rule in eligibility.SELECTION} | {"dtype"}
    assert ours == set(AttentionSelectorConfig._fields)


def test_the_table_knows_every_argument_of_a_layer():
    assert eligibility.layer_refusals(arguments(20, (512, 192, 64, 256)), "cpu") == []
    assert NAME in MLAPrefillBackendEnum.__members__ or register.prefill_member()
