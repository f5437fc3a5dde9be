# SPDX-License-Identifier: Apache-2.0
"""The table of what is served: each refusal names its setting, its value and what works instead."""

from dataclasses import replace

import pytest

from rocmforge_plugin import served
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.eligibility import (
    HEAD_SIZES,
    LAYER,
    PROBLEM,
    SELECTION,
    problem_of,
    problem_refusals,
    refusals,
)

GLM = {
    "head_size": 128,
    "dtype": "bfloat16",
    "kv_cache_dtype": "auto",
    "block_size": 16,
    "use_mla": False,
    "has_sink": False,
    "use_sparse": False,
    "use_mm_prefix": False,
    "use_per_head_quant_scales": False,
    "attn_type": "decoder",
    "has_sliding_window": False,
    "use_non_causal": False,
    "use_batch_invariant": False,
    "use_kv_connector": False,
    "use_pcp": False,
    "use_adaptive_verification": False,
    "use_dcp": False,
    "use_rswa": False,
}
LAYER_GLM = {
    "num_heads": 32,
    "num_kv_heads": 2,
    "head_size": 128,
    "alibi_slopes": None,
    "sliding_window": None,
    "kv_cache_dtype": "auto",
    "logits_soft_cap": None,
    "attn_type": "decoder",
    "kv_sharing_target_layer_name": None,
    "use_dcp": False,
}
KV_FP8 = {"kv_cache_dtype": "fp8"}


@pytest.mark.parametrize("target", ["amd", "nvidia", "cpu"])
def test_glm_is_served(target):
    assert refusals(GLM, target) == []
    assert refusals(LAYER_GLM, target, LAYER) == []


@pytest.mark.parametrize(
    "change",
    [
        *({"head_size": size} for size in (32, 40, 64, 72, 80, 96, 104, 192, 256, 512)),
        {"dtype": "float16"},
        {"block_size": None},
        {"block_size": 128},
        {"kv_cache_dtype": None},
        {"has_sliding_window": True},
        {"has_sink": True},
        {"use_kv_connector": True},
        {"use_non_causal": True},
        {"use_mm_prefix": True},
        {"use_mm_prefix": True, "head_size": 512},
        {"attn_type": "encoder_decoder"},
        {"use_dcp": True},
        {"use_dcp": True, "has_sink": True},
    ],
)
def test_served_variations(change):
    assert refusals(GLM | change, "amd") == []


@pytest.mark.parametrize(
    ("setting", "value", "instead"),
    [
        ("head_size", 36, "a multiple of 8 from 32 to 256, or 512"),
        ("head_size", 24, "a multiple of 8 from 32 to 256, or 512"),
        ("head_size", 576, "a multiple of 8 from 32 to 256, or 512"),
        ("dtype", "float32", "bfloat16"),
        ("kv_cache_dtype", "fp8", "--kv-cache-dtype bfloat16"),
        ("kv_cache_dtype", "fp8_e5m2", "--kv-cache-dtype bfloat16"),
        ("kv_cache_dtype", "float16", "--kv-cache-dtype bfloat16"),
        ("block_size", 8, "multiple of 16"),
        ("block_size", 0, "multiple of 16"),
        ("attn_type", "encoder_of_a_later_vllm", "decoder"),
        ("use_sparse", True, "leave out --attention-backend"),
        ("use_per_head_quant_scales", True, "leave out --attention-backend"),
        ("use_rswa", True, "two intervals of keys, the prompt's and a window's, (use_rswa=True) is not supported"),
        ("use_pcp", True, "--prefill-context-parallel-size 1"),
        ("use_something_of_a_later_vllm", True, "leave out --attention-backend"),
    ],
)
def test_refusal_names_setting_value_and_what_works(setting, value, instead):
    (reason,) = refusals(GLM | {setting: value}, "amd")
    assert setting in reason or f"--{setting.replace('_', '-')}" in reason
    assert str(value) in reason
    assert instead in reason


@pytest.mark.parametrize(
    ("setting", "value", "instead"),
    [
        ("logits_soft_cap", -50.0, "a finite number above 0"),
        ("logits_soft_cap", float("inf"), "a finite number above 0"),
        ("logits_soft_cap", float("nan"), "a finite number above 0"),
        ("alibi_slopes", [0.5, 0.25], "must be 32, one for each query head"),
        ("num_heads", 258, "1 to 128 times num_kv_heads"),
        ("num_heads", 33, "1 to 128 times num_kv_heads"),
        ("head_size", 68, "a multiple of 8 from 32 to 256, or 512"),
        ("sliding_window", 0, "above 0"),
        ("chunk_lookback", 1, "leave out --attention-backend"),
        ("head_size_v", 64, "leave out --attention-backend"),
        ("kv_cache_dtype", "fp8", "the model's dtype"),
        ("invented_argument", 3, "leave out --attention-backend"),
    ],
)
def test_layer_refusals(setting, value, instead):
    (reason,) = refusals(LAYER_GLM | {setting: value}, "cpu", LAYER)
    assert instead in reason
    assert {"kv_cache_dtype": "--kv-cache-dtype"}.get(setting, setting) in reason


@pytest.mark.parametrize(
    ("rules", "setting", "value"),
    [
        (SELECTION, "has_sliding_window", True),
        (SELECTION, "use_mm_prefix", True),
        (SELECTION, "use_non_causal", True),
        (SELECTION, "use_batch_invariant", True),
        (SELECTION, "head_size", 512),
        (SELECTION, "attn_type", "encoder_only"),
        (LAYER, "sliding_window", 128),
        (LAYER, "alibi_slopes", [0.5]),
        (LAYER, "logits_soft_cap", 30.0),
        (LAYER, "kv_sharing_target_layer_name", "layers.3.attn"),
    ],
)
def test_what_ranks_cannot_divide(rules, setting, value):
    """Among the reasons, if others hold as well, is one that names the ranks; without them it does not."""
    layer = (GLM if rules is SELECTION else LAYER_GLM) | {setting: value}
    together = " beside decode context parallelism"
    (reason,) = [one for one in refusals(layer | {"use_dcp": True}, "amd", rules) if together in one]
    assert setting in reason and str(value) in reason and "--decode-context-parallel-size 1" in reason
    assert not any(together in one for one in refusals(layer, "amd", rules))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("logits_soft_cap", 0.0),
        ("logits_soft_cap", None),
        ("logits_soft_cap", 50.0),
        ("alibi_slopes", None),
        ("alibi_slopes", [0.5] * 32),
        ("use_alibi_sqrt", True),  # which means nothing without slopes
        ("num_heads", 142),
        ("num_heads", 2),
        ("num_heads", 128),
        ("head_size_v", 128),
        ("head_size_v", None),
        ("sliding_window", 128),
        ("sinks", object()),
        ("chunk_lookback", -1),
        ("use_alibi_sqrt", False),
    ],
)
def test_layer_accepts(setting, value):
    assert refusals(LAYER_GLM | {setting: value}, "amd", LAYER) == []


def test_images_beside_a_score_that_has_no_kernel():
    """Only then are they what is in the way, and text alone what works."""
    problem = Problem("bfloat16", 4, 2, 128, 128, score="biased", mask="ranges")
    (reason,) = problem_refusals(problem, "amd")
    assert "use_mm_prefix" in reason and "--limit-mm-per-prompt" in reason and "biased" in reason
    (reason,) = problem_refusals(replace(problem, score="plain", key_dims=520, value_dims=520), "amd")
    assert "use_mm_prefix" not in reason and "--limit-mm-per-prompt" not in reason
    assert problem_refusals(replace(problem, score="capped"), "amd") == []


SLOPES = {"alibi_slopes": [0.5] * 32}


@pytest.mark.parametrize(
    ("settings", "score"),
    [
        ({"logits_soft_cap": 50.0, "head_size": 256}, "capped"),
        (SLOPES, "biased"),
        (SLOPES | {"use_alibi_sqrt": True}, "rooted"),
        ({"use_alibi_sqrt": True}, "plain"),
    ],
)
def test_the_score_of_a_layer(settings, score):
    asked = LAYER_GLM | settings
    assert refusals(asked, "amd", LAYER) == [] and problem_of(asked, "amd").score == score


@pytest.mark.parametrize(
    ("settings", "names", "instead"),
    [
        (SLOPES | {"logits_soft_cap": 50.0}, ("alibi_slopes", "logits_soft_cap=50.0"), "each alone has"),
        (SLOPES | {"head_size": 136}, ("head_size is 136", "ALiBi (alibi_slopes)"), "a multiple of 8 from 32 to 128,"),
        (
            SLOPES | {"head_size": 256, "use_alibi_sqrt": True},
            ("head_size is 256", "square-root ALiBi (use_alibi_sqrt)"),
            "a multiple of 8 from 32 to 128,",
        ),
        (
            {"logits_soft_cap": 50.0, "head_size": 512},
            ("head_size is 512", "logits_soft_cap"),
            "a multiple of 8 from 32 to 256,",
        ),
    ],
)
def test_refused_together(settings, names, instead):
    """What has no kernel with a score is refused when the layer is built, by the names of both."""
    (reason,) = refusals(LAYER_GLM | settings, "amd", LAYER)
    assert all(name in reason for name in names) and instead in reason


def test_a_refusal_blames_the_score_for_nothing_else():
    (reason,) = refusals(LAYER_GLM | {"logits_soft_cap": 50.0, "head_size": 68}, "cpu", LAYER)
    assert "head_size is 68 beside" in reason  # another list of sizes is what works
    (reason,) = refusals(LAYER_GLM | {"logits_soft_cap": 50.0, "num_heads": 33}, "cpu", LAYER)
    assert "soft_cap" not in reason


@pytest.mark.parametrize("attn_type", ["encoder_only", "encoder"])
def test_encoders_are_served(attn_type):
    asked = {"attn_type": attn_type}
    assert problem_of(asked, "amd").op == "varlen_attention"
    for change in ({}, {"head_size": 72}, {"has_sliding_window": True}):
        assert refusals(GLM | asked | change, "amd") == []
    for setting, value in (("sliding_window", 64), ("logits_soft_cap", 0.0), ("sinks", None)):
        assert refusals(LAYER_GLM | asked | {setting: value}, "amd", LAYER) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [("logits_soft_cap", 30.0), ("alibi_slopes", [0.5] * 32), ("use_alibi_sqrt", True), ("sinks", object())],
)
def test_what_encoders_have_no_kernel_for(setting, value):
    (reason,) = refusals(LAYER_GLM | {"attn_type": "encoder_only", setting: value}, "amd", LAYER)
    assert setting in reason and "of an encoder" in reason and "leave out --attention-backend" in reason


def test_encoders_heads_and_sinks_at_the_selection():
    asked = GLM | {"attn_type": "encoder_only"}
    (reason,) = refusals(asked | {"head_size": 512}, "amd")
    assert "head_size is 512" in reason
    (reason,) = refusals(asked | {"has_sink": True}, "amd")
    assert "sinks of an encoder" in reason


def test_fp32_only_on_the_cpu():
    assert refusals(GLM | {"dtype": "float32"}, "cpu") == []
    assert refusals(GLM | {"dtype": "float32"}, "nvidia")


def test_every_reason_is_listed():
    bad = GLM | {"head_size": 68, "use_sparse": True, "kv_cache_dtype": "fp8"}
    assert len(refusals(bad, "amd")) == 3


def test_a_quantized_cache_that_the_checkpoint_declares():
    """vLLM turns --kv-cache-dtype auto into it, so auto is not what helps; in fp32 vLLM has no name for what would."""
    (reason,) = refusals(GLM | KV_FP8, "cpu")
    assert "the checkpoint declares" in reason and "auto" not in reason
    (reason,) = refusals(GLM | KV_FP8 | {"dtype": "float32"}, "cpu")
    assert "leave out --attention-backend" in reason and "auto" not in reason


def test_the_problem_that_is_asked_about():
    assert problem_of(LAYER_GLM | {"dtype": "float16"}, "amd") == Problem("float16", 32, 2, 128, 128)
    # The selection tells no heads, the layer no dtype: what is served stands in for them.
    assert problem_of(GLM, "amd").refusals("amd") == []
    assert problem_of(LAYER_GLM, "amd").refusals("amd") == []
    assert problem_of({"num_heads": 12, "head_size_v": 64, "head_size": 96}, "cpu").value_dims == 64


@pytest.mark.parametrize("target", ["amd", "nvidia", "cpu"])
def test_what_is_served_is_what_served_says(target):
    assert set(served.HEAD_SIZES) < set(HEAD_SIZES) and 40 in HEAD_SIZES
    for size in range(1, 600):
        assert (refusals(GLM | {"head_size": size}, target) == []) == (size in HEAD_SIZES)
    for dtype in ("bfloat16", "float16", "float32", "float64", "float8_e4m3fn"):
        assert (refusals(GLM | {"dtype": dtype}, target) == []) == (dtype in served.DTYPES[target])
    for group in range(1, 140):
        assert (refusals(LAYER_GLM | {"num_heads": 2 * group}, target, LAYER) == []) == (group <= served.MAX_GROUP)


def test_the_table_knows_every_field_of_the_selector():
    selector = pytest.importorskip("vllm.v1.attention.selector")
    ours = {rule.setting for rule in SELECTION} | {"dtype", "head_size"}
    assert ours == set(selector.AttentionSelectorConfig._fields)
    assert {"dtype", "head_size"} <= set(PROBLEM)
