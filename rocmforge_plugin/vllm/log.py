# SPDX-License-Identifier: Apache-2.0
"""The plugin's logger: a child of vLLM's own, since vLLM configures no other and its level applies."""

from vllm.logger import init_logger

logger = init_logger("vllm.rocmforge")
