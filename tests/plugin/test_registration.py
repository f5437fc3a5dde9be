# SPDX-License-Identifier: Apache-2.0
"""The backend's name, its way through process boundaries, and what the CPU platform makes of it."""

import copy
import importlib.metadata
import os
import pickle
import subprocess
import sys
import textwrap

import cloudpickle
import pytest
import torch
import vllm
import vllm.platforms
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.attention.selector import AttentionSelectorConfig

import rocmforge_plugin
from rocmforge_plugin.vllm import BACKEND_PATH, register
from rocmforge_plugin.vllm.log import logger
from tests import HANG

pytestmark = pytest.mark.skipif(not vllm.platforms.current_platform.is_cpu(), reason="the CPU platform's behaviour")
GLM = AttentionSelectorConfig(head_size=128, dtype=torch.bfloat16, kv_cache_dtype="auto", block_size=None)


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in a process that has loaded nothing yet."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        text=True,
        capture_output=True,
        timeout=HANG,
        env=os.environ | {"VLLM_LOGGING_LEVEL": "WARNING"} | environment,
    )


@pytest.fixture
def member():
    register.register()
    return register.backend_member()


@pytest.fixture
def warnings(monkeypatch):
    """What the plugin's logger warns of, with the check forgotten."""
    seen = []
    monkeypatch.setattr(logger, "warning", lambda text, *args: seen.append(text % args))
    monkeypatch.setitem(register._state, "version_checked", False)
    return seen


def test_registering_again_changes_nothing(member):
    rocmforge_plugin.register()
    rocmforge_plugin.register()
    assert register.backend_member() is member is AttentionBackendEnum["ROCMFORGE"]
    assert [name for name in AttentionBackendEnum.__members__ if "ROCMFORGE" in name] == ["ROCMFORGE"]


@pytest.mark.parametrize("named", [register.backend_member, register.prefill_member])
@pytest.mark.parametrize(
    "through",
    [
        *(lambda m, p=protocol: pickle.loads(pickle.dumps(m, p)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)),
        lambda m: cloudpickle.loads(cloudpickle.dumps(m)),
        copy.copy,
        copy.deepcopy,
    ],
)
def test_member_survives_copies(named, through):
    member = named()
    assert through(member) is member is named()


def test_members_reach_a_process_that_has_loaded_no_plugin(member):
    done = fresh(f"""
        import pickle
        from vllm.v1.attention.backends.mla.prefill.registry import MLAPrefillBackendEnum
        from vllm.v1.attention.backends.registry import AttentionBackendEnum
        member, prefill = pickle.loads({pickle.dumps((member, register.prefill_member()))!r})
        assert member is AttentionBackendEnum["ROCMFORGE"], member
        assert prefill is MLAPrefillBackendEnum["ROCMFORGE"], prefill
        assert member.get_class().get_name() == prefill.get_class().get_name() == "ROCMFORGE"
    """)
    assert done.returncode == 0, done.stderr


def test_name_is_known_before_general_plugins_are_loaded():
    done = fresh("""
        import vllm.plugins
        from vllm.config import AttentionConfig
        from vllm.platforms import current_platform
        assert current_platform.is_cpu() and not vllm.plugins.plugins_loaded
        assert AttentionConfig(backend="rocmforge").backend.name == "ROCMFORGE"
        assert AttentionConfig(backend="ROCMForge").backend.name == "ROCMFORGE"
        assert AttentionConfig(mla_prefill_backend="rocmforge").mla_prefill_backend.name == "ROCMFORGE"
    """)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("environment", [{}, {"VLLM_TARGET_DEVICE": "cpu"}])
def test_the_platform_stays_vllms_and_learns_the_name(environment):
    """Whether vLLM looks for platform plugins or, with VLLM_TARGET_DEVICE, does not."""
    done = fresh(
        """
        from vllm.platforms import current_platform
        before = type(current_platform)
        assert before.__name__ == "CpuPlatform", before
        from vllm.plugins import load_general_plugins
        load_general_plugins()
        assert type(current_platform).__name__ == "RocmForgeCpuPlatform", type(current_platform)
        assert isinstance(current_platform, before)
        from rocmforge_plugin.vllm import selection
        after = type(current_platform)
        selection.adopt(current_platform)
        assert type(current_platform) is after
    """,
        **environment,
    )
    assert done.returncode == 0, done.stderr


def test_without_the_plugin_the_name_is_refused_loudly():
    done = fresh(
        """
        from vllm.config import AttentionConfig
        AttentionConfig(backend="rocmforge")
    """,
        VLLM_PLUGINS="none",
    )
    assert done.returncode != 0 and "rocmforge" in done.stderr.lower()


def test_selection_on_the_cpu(member):
    platform = vllm.platforms.current_platform
    assert platform.is_cpu() and not platform.is_out_of_tree()
    assert platform.get_attn_backend_cls(member, GLM, num_heads=32) == BACKEND_PATH
    assert "CPUAttentionBackend" in platform.get_attn_backend_cls(None, GLM, num_heads=32)
    assert "CPUAttentionBackend" in platform.get_attn_backend_cls(AttentionBackendEnum.CPU_ATTN, GLM)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"head_size": 68}, "head_size"),
        ({"kv_cache_dtype": "fp8"}, "--kv-cache-dtype"),
        ({"attn_type": "encoder_only", "has_sink": True}, "attention sinks of an encoder"),
        ({"block_size": 24}, "--block-size"),
        ({"use_dcp": True, "has_sliding_window": True}, "--decode-context-parallel-size"),
        ({"dtype": torch.float64}, "float64"),
    ],
)
def test_refusal_on_the_cpu(member, change, named):
    with pytest.raises(ValueError, match="not valid for this configuration") as raised:
        vllm.platforms.current_platform.get_attn_backend_cls(member, GLM._replace(**change))
    assert named in str(raised.value)


def test_missing_kernels_are_a_reason(member, monkeypatch, tmp_path):
    monkeypatch.setenv("ROCMFORGE_KERNELS", str(tmp_path))
    with pytest.raises(ValueError, match="no kernels for the CPU.*rocmforge_build"):
        vllm.platforms.current_platform.get_attn_backend_cls(member, GLM)


def test_kernels_that_were_not_built_are_a_reason(member, monkeypatch, tmp_path):
    """A build of some problems only, as a build for development may be."""
    monkeypatch.setenv("ROCMFORGE_KERNELS", str(tmp_path))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "kernels.txt").write_text(
        "interface 0\nattention_plan x.so\nattention_prefill_bf16_d128 x.so\nattention_combine_bf16_d128 x.so\n"
    )
    select = vllm.platforms.current_platform.get_attn_backend_cls
    assert select(member, GLM, num_heads=32) == BACKEND_PATH
    missing = "no attention_prefill_bf16_d64 and no attention_combine_bf16_d64 for the CPU.*ROCMFORGE_TARGETS=cpu"
    with pytest.raises(ValueError, match=missing):
        select(member, GLM._replace(head_size=64))
    with pytest.raises(ValueError, match="no attention_prefill_f16_d128") as raised:
        select(member, GLM._replace(dtype=torch.float16))
    assert "d64" not in str(raised.value)


def test_missing_compiled_module_is_a_reason(member, monkeypatch):
    monkeypatch.setitem(sys.modules, "rocmforge_plugin._C", None)
    monkeypatch.delattr(rocmforge_plugin, "_C")
    with pytest.raises(ValueError, match="_C"):
        vllm.platforms.current_platform.get_attn_backend_cls(member, GLM)


@pytest.mark.parametrize("version", ["0.31.2", "0.34.0", "1.0.0", "dev"])
def test_untested_version_gets_one_warning(version, warnings, monkeypatch):
    monkeypatch.setattr(vllm, "__version__", version)
    register.check_version()
    register.check_version()
    assert len(warnings) == 1 and "0.32 to 0.33" in warnings[0] and version in warnings[0]


@pytest.mark.parametrize("version", ["0.32.0", "0.33.0", "0.33.1.dev5+gabc", "0.32.1+cpu"])
def test_tested_version_gets_none(version, warnings, monkeypatch):
    monkeypatch.setattr(vllm, "__version__", version)
    register.check_version()
    assert warnings == []


def test_the_place_of_a_platform_plugin_stays_free():
    (entry,) = importlib.metadata.entry_points(group="vllm.platform_plugins", name="rocmforge")
    assert entry.load()() is None


def test_what_only_the_layer_knows_is_refused_by_it():
    from rocmforge_plugin.vllm.backend.impl import RocmForgeImpl

    with pytest.raises(ValueError, match="head_size is 512.*from 32 to 256.*leave out --attention-backend"):
        RocmForgeImpl(32, 512, 0.1, 2, None, None, "auto", 50.0, "decoder", None)  # with a soft cap
    with pytest.raises(ValueError, match="num_heads is 258 beside num_kv_heads 2.*1 to 128 times num_kv_heads"):
        RocmForgeImpl(258, 128, 0.1, 2, None, None, "auto", None, "decoder", None)
