# SPDX-License-Identifier: Apache-2.0
"""Importing the package needs no GPU, no vLLM and no compiled module, and loads next to nothing."""

import json
import os
import subprocess
import sys
import textwrap

import rocmforge_plugin
from tests import HANG


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        text=True,
        capture_output=True,
        timeout=HANG,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_neither_vllm_nor_torch_nor_the_compiled_module():
    loaded = json.loads(
        run("""
        import json, sys
        import rocmforge_plugin
        print(json.dumps([name for name in ("vllm", "torch", "rocmforge_plugin._C") if name in sys.modules]))
    """)
    )
    assert loaded == []


def test_ops_work_without_vllm():
    run("""
        import sys
        sys.modules["vllm"] = None  # importing vLLM raises ImportError from here on
        import torch
        import rocmforge_plugin
        from rocmforge_plugin.ops.attention import paged_attention
        from rocmforge_plugin.ops.kv_cache import kv_write
        cache = torch.zeros(2, 1, 16, 128)
        key = torch.randn(3, 1, 64)
        kv_write(key, key + 1, cache, torch.tensor([0, 17, -1]))
        assert torch.equal(cache[1, 0, 1, :64], key[1, 0]) and torch.equal(cache[1, 0, 1, 64:], key[1, 0] + 1)
        assert sum(rocmforge_plugin.launches().values()) == 1, rocmforge_plugin.launches()
        assert sys.modules["vllm"] is None
    """)


def test_import_loads_little_beyond_torch():
    """Modules of our own and a few of Python's; nothing is compiled, no program is run, no device is opened."""
    found = json.loads(
        run("""
        import json, sys, torch
        before, ran = set(sys.modules), []
        sys.addaudithook(lambda event, _: ran.append(event) if event in ("subprocess.Popen", "os.system") else None)
        import rocmforge_plugin
        import rocmforge_plugin.ops.attention
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        foreign = sorted(new - set(sys.stdlib_module_names) - {"rocmforge_plugin"})
        print(json.dumps([foreign, len(set(sys.modules) - before), ran, rocmforge_plugin.launches()]))
    """)
    )
    foreign, count, ran, launches = found
    assert (foreign, ran, launches) == ([], [], {}) and count < 40


def test_missing_compiled_module_is_explained(tmp_path):
    out = run("""
        import sys
        sys.modules["rocmforge_plugin._C"] = None
        import rocmforge_plugin
        try:
            rocmforge_plugin.launches()
        except ImportError as error:
            print(error)
    """)
    assert "rocmforge_build" in out


def test_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert version("rocmforge") == rocmforge_plugin.__version__


def test_summary_names_target_and_kernels():
    line = rocmforge_plugin.summary("cpu")
    assert line.startswith(f"rocmforge {rocmforge_plugin.__version__}: cpu code on ")
    assert "kv_write" in line and "attention" in line
