# SPDX-License-Identifier: Apache-2.0
"""Documents of the local tasks, made from a seed when lm-eval loads a task; nothing is fetched or stored.

`lm_eval --include_path evals/tasks --tasks rocmforge_local --metadata '{"size": "full"}'` works without rocmforge's
own command as well.
"""

from __future__ import annotations

from typing import Any

from datasets import Dataset

from rocmforge_plugin.evaluate import documents


def docs(name: str, size: str = "short", seed: int = documents.SEED, **_: Any) -> dict[str, Dataset]:
    """The test split of task `name` at `size` (smoke, short, long, full)."""
    return {"test": Dataset.from_list(documents.make(name, size, seed))}


def exact(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the generated text is the answer, character for character."""
    return {"exact_match": float(results[0].rstrip("\n") == doc["answer"].rstrip("\n"))}
