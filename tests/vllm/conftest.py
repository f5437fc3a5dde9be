# SPDX-License-Identifier: Apache-2.0
"""Offline engines, and the process that runs the reference ones."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


@pytest.fixture(scope="session")
def reference():
    """vLLM without rocmforge, in a process of its own."""
    from tests.vllm.engines import Reference

    running = Reference()
    yield running
    running.pool.shutdown()
