#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run vLLM's own attention tests with rocmforge in the place of the backends they name, and count what ran.

    pip download --no-deps --no-binary :all: vllm==0.32.0    # or git clone; the version that is installed
    python tools/vllm_suite.py VLLM_SOURCE [arguments of pytest, such as -k causal]

VLLM_SOURCE is a source tree of vLLM; of it only tests/ is used, as a copy in a temporary folder, so that the installed
vLLM is what is tested. Nothing of it is changed on disk. While the tests run:
  * every list of backends in a test module is rocmforge alone;
  * models are named by configurations made here, since the tests need their shapes and no weights;
  * vLLM's conftest.py, which imports what only its own test environment has, stays out.
A test counts as served if it passed and launched rocmforge's kernels, as refused if rocmforge said no in words, and as
untouched if it passed without any launch. The exit status is 0 if tests were served and none failed.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = (
    "v1/attention/test_attention_backends.py",
    "v1/attention/test_chunked_local_attention.py",
    "v1/attention/test_attention_splitting.py",
    "v1/attention/test_batch_reordering.py",
)
FOLDER = "ROCMFORGE_VLLM_SUITE"  # where the copy is, for the process that runs pytest
# What of the models that the tests name their metadata depends on: heads, head size, window.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-llama/Meta-Llama-3-8B": (
        "LlamaConfig",
        {
            "architectures": ["LlamaForCausalLM"],
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "num_hidden_layers": 32,
            "max_position_embeddings": 8192,
        },
    ),
    "Qwen/Qwen3-0.6B": (
        "Qwen3Config",
        {
            "architectures": ["Qwen3ForCausalLM"],
            "hidden_size": 1024,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "num_hidden_layers": 28,
            "max_position_embeddings": 40960,
        },
    ),
    "microsoft/Phi-tiny-MoE-instruct": (
        "PhimoeConfig",
        {
            "architectures": ["PhiMoEForCausalLM"],
            "hidden_size": 4096,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "num_hidden_layers": 32,
            "max_position_embeddings": 4096,
            "sliding_window": 2047,
        },
    ),
    "google/embeddinggemma-300m": (
        "Gemma3TextConfig",
        {
            "architectures": ["Gemma3TextModel"],
            "hidden_size": 768,
            "num_attention_heads": 3,
            "num_key_value_heads": 1,
            "head_dim": 256,
            "num_hidden_layers": 24,
            "max_position_embeddings": 2048,
            "sliding_window": 512,
            "use_bidirectional_attention": True,
        },
    ),
}


class Suite:
    """The pytest plugin: points modules at rocmforge before their tests run, and keeps the count."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.models = folder / "models"
        self.launched: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def name_models(self) -> None:
        """vLLM's ModelConfig finds a configuration made here for the models in the list, and others as ever."""
        import transformers
        from vllm.config import ModelConfig

        initialise = ModelConfig.__init__

        def named(config: ModelConfig, *arguments: Any, **settings: Any) -> None:
            name = settings.get("model")
            if name in MODELS:
                kind, shape = MODELS[name]
                place = self.models / name
                if not place.is_dir():
                    getattr(transformers, kind)(dtype="bfloat16", **shape).save_pretrained(place)
                settings |= {"model": str(place), "tokenizer": str(place)}
            initialise(config, *arguments, **settings)

        ModelConfig.__init__ = named

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """The lists of backends in the test modules become rocmforge."""
        from vllm.v1.attention.backends.registry import AttentionBackendEnum

        from rocmforge_plugin.vllm.register import backend_member

        for module in {item.module for item in items if isinstance(item, pytest.Function)}:
            for name, value in list(vars(module).items()):
                if isinstance(value, list) and any(isinstance(one, AttentionBackendEnum) for one in value):
                    value[:] = [backend_member()]
                elif name == "is_torch_equal_or_newer":  # true, a test runs FlexAttention as well, whatever is listed
                    setattr(module, name, lambda version: False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Counts a test's launches, and keeps what rocmforge said no with."""
        import rocmforge_plugin

        rocmforge_plugin.reset_launches()
        try:
            return (yield)
        except ValueError as error:
            if str(error).startswith("rocmforge "):
                self.refused[item.nodeid] = str(error)
            raise
        finally:
            self.launched[item.nodeid] = sum(rocmforge_plugin.launches().values())

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """The count, and each way in which something was refused, once."""
        kinds = self.count(terminalreporter.stats)
        terminalreporter.section("rocmforge in vLLM's tests")
        for reason, times in sorted(Counter(self.refused.values()).items()):
            terminalreporter.line(f"refused {times} times: {reason}")
        terminalreporter.line(
            ", ".join(f"{kinds[kind]} {kind}" for kind in ("served", "untouched", "refused", "failed", "skipped"))
        )

    def count(self, stats: dict[str, list[Any]]) -> Counter[str]:
        """Tests by what became of them."""
        kinds: Counter[str] = Counter(skipped=len(stats.get("skipped", [])))
        kinds.update(
            "served" if self.launched.get(report.nodeid) else "untouched" for report in stats.get("passed", [])
        )
        kinds.update(
            "refused" if report.nodeid in self.refused else "failed"
            for report in [*stats.get("failed", []), *stats.get("error", [])]
        )
        return kinds

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A refusal in words is what the plugin promises, and no failure; nothing served is one."""
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        kinds = self.count(reporter.stats) if reporter is not None else Counter()
        session.exitstatus = int(kinds["failed"] > 0 or kinds["served"] == 0)

    @pytest.fixture
    def default_vllm_config(self) -> Iterator[Any]:
        """As the fixture of this name in vLLM's conftest.py: a configuration for what is made outside an engine."""
        from vllm.config import VllmConfig, set_current_vllm_config

        with set_current_vllm_config(VllmConfig()) as config:
            yield config


def run_here(folder: pathlib.Path, arguments: list[str]) -> int:
    """pytest in this process, with the plugin registered and vLLM's conftest.py left out."""
    sys.path[:0] = [str(folder), str(ROOT)]
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    suite = Suite(folder)
    suite.name_models()
    options = [
        "--noconftest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
        "--import-mode",
        "importlib",
        "--show-capture",
        "no",
    ]
    return int(pytest.main([*options, *arguments], plugins=[suite]))


def main() -> int:
    """Copies vLLM's tests and runs them in a process of their own; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="a source tree of vLLM")
    parser.add_argument("--files", nargs="+", default=FILES, metavar="FILE", help="test files, relative to its tests/")
    given, others = parser.parse_known_args()
    tests = given.source / "tests"
    if not (tests / "v1" / "attention").is_dir():
        parser.error(f"{tests} has no v1/attention: give a source tree of vLLM, as its sdist or repository has it")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        shutil.copytree(tests, folder / "tests", ignore=shutil.ignore_patterns("conftest.py"))
        environment = os.environ | {FOLDER: name, "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
        command = [sys.executable, __file__, *(str(folder / "tests" / one) for one in given.files), *others]
        return subprocess.run(command, env=environment, cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(run_here(pathlib.Path(os.environ[FOLDER]), sys.argv[1:]) if FOLDER in os.environ else main())
