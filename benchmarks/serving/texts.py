# SPDX-License-Identifier: Apache-2.0
"""The sections that compare texts: parity of models, and features that change how the attention is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import sameness
from .pool import Task, run_pool
from .state import Run
from .worker import KINDS

FEATURES: dict[str, tuple[dict[str, Any], str | None]] = {  # settings, and the counter that shows that it happened
    "chunked": ({"max_num_batched_tokens": 64, "max_num_seqs": 32}, None),
    "prefix": ({"enable_prefix_caching": True}, "prefix_cache_hits"),
    "ngram": (
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 3,
                "prompt_lookup_max": 4,
                "prompt_lookup_min": 2,
            }
        },
        "spec_decode_num_accepted_tokens",
    ),
    "draft": (
        {"speculative_config": {"method": "draft_model", "num_speculative_tokens": 3}},
        "spec_decode_num_accepted_tokens",
    ),
    "preemption": ({"num_gpu_blocks_override": 60}, "num_preemptions"),
}


def text_sections(run: Run, sections: Sequence[str]) -> None:
    """parity and features, through one pool of processes."""
    groups: dict[str, dict[str, dict[str, Any]]] = {}
    labels: dict[str, tuple[str, str, str]] = {}
    tasks = []

    def add(section: str, feature: str, kind: str, backend: str, changes: dict[str, Any]) -> None:
        name = f"{kind} {backend}" if section == "parity" else f"{feature} {backend}"
        settings = run.text_settings() | changes
        if "num_gpu_blocks_override" in changes and not run.gpu:
            settings["num_gpu_blocks_override"] //= 2  # of twice the tokens
        if feature == "draft":
            settings["speculative_config"] = settings["speculative_config"] | {
                "model": run.models[kind],
                "attention_backend": backend,
            }  # else vLLM chooses the draft model's itself
        labels[name] = (section, feature if section == "features" else kind, backend)
        tasks.append(
            run.task(
                name,
                {
                    "task": "text",
                    "feature": feature,
                    "model": run.models[kind],
                    "backend": backend,
                    "settings": settings,
                },
                170 if run.gpu else 600,
            )
        )

    if "parity" in sections:
        for kind in KINDS:
            for backend in ("rocmforge", *run.references):
                add("parity", "parity", kind, backend, {})
    if "features" in sections:
        for feature, (changes, _) in FEATURES.items():
            for backend in ("rocmforge", run.references[0]):
                add("features", feature, "glm4", backend, changes)

    def done(task: Task) -> None:
        section, what, backend = labels[task.name]
        result = run.keep(section, task)
        if result is None:
            return
        groups.setdefault(f"{section} {what}", {})[backend] = result

    run_pool(run.chosen(tasks), run.width, run.deadline, done)
    for group, backends in groups.items():
        compare(run, group, backends)
    run.save()


def compare(run: Run, group: str, backends: dict[str, dict[str, Any]]) -> None:
    """Print and judge one checkpoint's or feature's runs."""
    print(f"\n{group}")
    errors = {name: sameness.errors_of(one) for name, one in backends.items()}
    report: dict[str, Any] = {"errors": errors, "agreement": {}}
    run.results.setdefault("comparisons", {})[group] = report
    for name, found in errors.items():
        parts = "  ".join(
            f"{kind}: {v['tokens']:.0f} tokens, mean {v['mean']:.2e}, largest {v['largest']:.2e}"
            for kind, v in found.items()
            if v["tokens"]
        )
        print(f"  {name:12} error from fp32  {parts}")
    first = next(name for name in (*run.references, "rocmforge") if name in backends)
    report["agreement"] = {
        f"{name} and {first}": sameness.agreement(one, backends[first])
        for name, one in backends.items()
        if name != first
    }
    for pair, a in report["agreement"].items():
        print(
            f"  {pair}: {a['equal_texts']} of {a['texts']} texts equal, {a['equal_tokens']} of {a['tokens']} tokens "
            f"before the first other one, where the two lie {a['largest_gap_at_parting']:.2e} apart at most; log "
            f"probabilities until then differ by {a['mean_difference']:.2e}, at most {a['largest_difference']:.2e}"
        )
    ours = backends.get("rocmforge")
    if ours is None:
        return
    counter = FEATURES.get(group.split()[1], ({}, None))[1]
    for name, one in backends.items():
        if counter:
            print(f"  {name:12} {counter} {one['counters'].get(counter, 0):.0f}")
            if not one["counters"].get(counter):
                run.fail(f"{group} {name}: {counter} is 0, so the feature was not exercised")
        if name != "rocmforge" and one["launches"]:
            run.fail(f"{group} {name}: rocmforge's kernels ran in the reference")
    counts = ours["launches"]
    print(
        f"  launches: {counts}\n  of these, while the engine started (in a graph they count when it is captured): "
        f"{ours['at_start']}"
    )
    for part in ("attention_plan", "attention_prefill", "attention_decode", "kv_write", "rotary"):
        if not any(part in name for name in counts):
            run.fail(f"{group}: no {part} kernel ran")
    report["wrong"] = sameness.verdict(errors["rocmforge"], [e for n, e in errors.items() if n != "rocmforge"])
    for text in report["wrong"]:
        run.fail(f"{group}: {text}")
    if not report["wrong"]:
        print("  same within rounding")
