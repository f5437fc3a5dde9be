# SPDX-License-Identifier: Apache-2.0
"""`rocmforge eval`: does a model answer through rocmforge as it does through the reference backend?

Importing this package loads neither vLLM nor lm-eval.
"""

from __future__ import annotations


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code (0 same, 1 different, 2 could not be decided)."""
    from rocmforge_plugin.evaluate.command import main as command

    return command(argv)
