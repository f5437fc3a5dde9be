# SPDX-License-Identifier: Apache-2.0
"""docs/support.md is what the code says: of rocmforge by its eligibility table, of vLLM's backends by their classes."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace

import pytest

from rocmforge_plugin import served
from rocmforge_plugin.vllm.backend import eligibility
from tools import support

# Settings that say nothing of a feature: what a layer is, or what a line without settings of its own is about.
OTHERS = {
    "use_mla",
    "use_sparse",
    "kv_cache_dtype",
    "block_size",
    "use_adaptive_verification",
    "kv_sharing_target_layer_name",
}


def feature(name: str) -> support.Feature:
    return next(one for one in support.FEATURES if one.name == name)


def test_the_document_is_current() -> None:
    pytest.importorskip("vllm")
    version = importlib.metadata.version("vllm").partition("+")[0]
    if f"classes of vLLM {version}\n" not in support.DOCUMENT.read_text():
        pytest.skip(f"the document was made with another vLLM than {version}")
    assert support.document() == support.DOCUMENT.read_text(), "python -m tools.support makes it anew"


def test_every_setting_that_may_be_refused_has_a_line() -> None:
    rules = {rule.setting for rule in (*eligibility.SELECTION, *eligibility.LAYER)}
    lines = {setting for one in support.FEATURES for setting in (*one.selection, *one.layer)}
    assert rules - OTHERS <= lines and lines - rules <= {"alibi_slopes", "use_alibi_sqrt"}
    for one in support.FEATURES:
        assert (one.asked is None) == bool(one.facts), f"{one.name}: classes are asked, or facts are there"
        assert not one.facts or one.facts.keys() == support.PEERS.keys()
        assert all(source for _, source in one.facts.values())


def test_ours_are_the_eligibility_tables_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that refuses and heads that have no kernels change the cells."""
    sinks, heads = feature("attention sinks"), feature("head sizes")
    assert support.our_cell(sinks) == support.YES and "512" in support.our_cell(heads)
    no_sinks = [
        replace(rule, accepts=eligibility.off, reason="no") if rule.setting == "has_sink" else rule
        for rule in eligibility.SELECTION
    ]
    with monkeypatch.context() as patch:
        patch.setattr(support.eligibility, "SELECTION", tuple(no_sinks))
        patch.setattr(support.eligibility.refusals, "__defaults__", (tuple(no_sinks),))
        assert support.our_cell(sinks) == support.NO
    fewer = tuple(
        (format, score, ((64, 64),) if format in ("joined", "narrow") else sizes)
        for format, score, sizes in served.PROBLEMS
    )
    monkeypatch.setattr(served, "PROBLEMS", fewer)
    assert support.our_cell(heads) == "multiples of 8 from 32 to 64"


def test_sizes_in_words() -> None:
    assert support.sizes_text([32, 40, 48, 64, 128, 136, 512]) == "multiples of 8 from 32 to 48, 64, 128, 136, 512"


def test_vllm_classes_are_asked() -> None:
    """Answers that differ from class to class, and a question that a vLLM does not know."""
    pytest.importorskip("vllm")
    classes = support.peers()
    answers = {name: feature("attention sinks").asked for name in classes}
    found = {name: ask(classes[name]) for name, ask in answers.items() if ask}
    assert found["ROCM_ATTN"] == support.NO and found["TRITON_ATTN"] == support.YES
    assert support.says("supports_what_is_to_come")(classes["TRITON_ATTN"]) == support.NO
