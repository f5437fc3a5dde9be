# SPDX-License-Identifier: Apache-2.0
"""Engines run inside the test process, offline; servers are real processes."""
import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
