# SPDX-License-Identifier: Apache-2.0
"""The benchmark of scores, masks, heads and vision encoders without a GPU: its check of results, ours, its peers."""

from __future__ import annotations

import inspect
import json
import math
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.kernels import compare, problems, problems_cases, problems_peers, vision
from benchmarks.kernels.problems_cases import SOFT_CAP, Case, Inputs
from benchmarks.report import table

from .test_mla import flash_attn_interface

LENS = (70, 33, 45)
PLAIN = Case("prefill tiny", LENS, 17, 8, 2, 64, kind="tiny")
KINDS = {
    "cap": replace(PLAIN, score="capped"),
    "cap and window": replace(PLAIN, score="capped", window=9, head=128),
    "bias": replace(PLAIN, score="biased", heads=6),
    "root": replace(PLAIN, score="rooted", head=128),
    "sinks": replace(PLAIN, sinks=True, window=5),
    "images": replace(PLAIN, images=((20, 25), (55, 65))),
    "images and window": replace(PLAIN, images=((20, 25), (55, 65)), window=4),
    "clamped": replace(PLAIN, images=((20, 25), (55, 65)), window=4, clamped=True),
    "not causal": replace(PLAIN, causal=(False,), window=6),
    "every other": replace(PLAIN, causal=(True, False)),
    "72": replace(PLAIN, head=72),
    "decode": replace(PLAIN, query_len=1, score="capped"),
}
IMAGES = vision.Case("tiny images", (20, 7, 33), 3, 72)
ALIKE = vision.Case("tiny windows", (16, 16), 2, 80, torch.float16)
CEILING = {"copy": 4e12, "product": 7e14}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every call is made once, and said to take half a millisecond."""
    monkeypatch.setattr(compare, "device_and_host", lambda calls: ([call() for call in calls] and 0.5, 0.0, 7.5))
    monkeypatch.setattr(problems, "device_and_host", compare.device_and_host)
    monkeypatch.setattr(problems_cases, "sets_of", lambda case: 2)
    monkeypatch.setattr(vision, "sets_of", lambda case: 2)


def masked(before, keys, tokens, window, causal, ranges=(), clamped=False):
    """Which keys each token sees, bool [tokens, keys], as vLLM's Triton kernel says it: pair by pair."""
    own, key = before + torch.arange(tokens)[:, None], torch.arange(keys)
    seen = (key <= own) if causal else (key < keys).expand(tokens, -1)
    if window:
        seen = seen & (own - key < window) & ((key - own < window) | torch.tensor(causal))
    for begin, end in ranges:
        both = (own >= begin) & (own <= end) & (key >= begin) & (key <= end) & (begin < end)
        seen = seen | (both & ((own - key < window) if clamped and window else torch.tensor(True)))
    return seen


def attend(query, key, value, scale, seen, cap=0.0, slopes=None, root=False, sinks=None):
    """Attention of one request in fp64, rounded once; bias relative to the first key, as Triton's is."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.double().repeat_interleave(group, 1) for x in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query.double(), key) * scale
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if slopes is not None:
        tokens, keys = seen.shape
        past = torch.arange(keys) - (keys - tokens + torch.arange(tokens))[:, None]
        bias = -(-past).clamp(min=0).double().sqrt() if root else torch.arange(keys).double()
        scores = scores + slopes.double()[:, None, None] * bias
    scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.double()[:, None, None].expand(-1, scores.shape[1], 1)), -1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., : key.shape[0]], value).to(query.dtype)


def paged(a):
    """What a call of paged attention by vLLM's names is to compute."""
    starts, causal = a["cu_seqlens_q"].tolist(), a["causal"]
    back, ahead = a.get("window_size") or (-1, -1)
    for r, keys in enumerate(a["seqused_k"].tolist()):
        at = slice(starts[r], starts[r + 1])
        tokens = at.stop - at.start
        assert tokens <= a["max_seqlen_q"] and keys <= a["max_seqlen_k"]
        key, value = (a[x][a["block_table"][r].long()].flatten(0, 1)[:keys] for x in ("k", "v"))
        of_request = bool(causal[r]) if isinstance(causal, torch.Tensor) else causal
        if a.get("fa_version") == 3:
            assert a["window_size"] == [back, 0 if of_request or back < 0 else back] or back < 0
            assert ahead == back or of_request
        ranges = a.get("mm_prefix_range")
        seen = masked(
            keys - tokens,
            keys,
            tokens,
            back + 1,
            of_request,
            [] if ranges is None else ranges[r].tolist(),
            a.get("mm_prefix_clamp_sliding_window", False),
        )
        a["out"][at] = attend(
            a["q"][at],
            key,
            value,
            a["softmax_scale"],
            seen,
            a["softcap"],
            a.get("alibi_slopes"),
            a.get("use_alibi_sqrt", False),
            a["sinks"] if "sinks" in a else a["s_aux"],
        )


def computed(case, x):
    """The right result of a case, into its `out`; what differs from the case is given by vLLM's names."""
    k, v = x.pages.split(case.head, -1)
    given = {
        "q": x.query, "k": k, "v": v, "out": x.out, "cu_seqlens_q": x.query_start, "max_seqlen_q": case.query_len,
        "seqused_k": x.seq_lens, "max_seqlen_k": max(case.lens), "softmax_scale": case.scale, "causal": x.causal,
        "window_size": (case.window - 1, 0) if case.window else None, "block_table": x.block_table,
        "softcap": SOFT_CAP if case.score == "capped" else 0, "alibi_slopes": x.slopes,
        "use_alibi_sqrt": case.score == "rooted", "sinks": x.sinks, "mm_prefix_range": x.ranges,
        "mm_prefix_clamp_sliding_window": case.clamped,
    }  # fmt: skip

    def run(**other):
        x.out.fill_(float("nan"))
        paged(given | other)
        return problems_cases.sampled_error(case, x)

    return run


@pytest.mark.parametrize("name", KINDS)
def test_our_results_are_right(name):
    row = problems.paged(KINDS[name], CEILING, [compare.OURS], "cpu")
    assert row["results"][compare.OURS]["error"] < 0.006 and row["plan_ms"] == 0.5 and row["kind"] == "tiny"


def test_batch_invariant_results_are_right():
    case = replace(PLAIN, query_len=1, kind=problems_cases.KIND_INVARIANT)
    names = [compare.OURS, problems_peers.INVARIANT]
    row = problems.paged(case, CEILING, names, "cpu")
    assert list(row["results"]) == names and all(result["error"] < 0.006 for result in row["results"].values())


@pytest.mark.parametrize("case", [IMAGES, ALIKE], ids=lambda case: case.name)
def test_images_are_right_and_torch_agrees(case):
    row = problems.images(case, CEILING, [], "cpu")
    names = [compare.OURS, vision.EACH, vision.BATCH if case.alike else vision.PADDED]
    assert [name for name in row["results"] if name != vision.FLASH_ATTENTION] == names
    assert all(row["results"][name]["error"] < 0.006 for name in names)


def test_wrong_results_are_caught():
    """Each feature left out or off by one, at the sampled tokens."""
    wrongs: dict[str, dict[str, Any]] = {
        "cap": {"softcap": 0},
        "cap and window": {"window_size": (9, 0)},
        "bias": {"alibi_slopes": problems_cases.alibi_slopes(6).roll(1)},
        "root": {"use_alibi_sqrt": False},
        "sinks": {"sinks": None},
        "images": {"mm_prefix_range": None},
        "images and window": {"mm_prefix_range": torch.tensor([[[20, 24], [55, 64]]] * 3)},
        "clamped": {"mm_prefix_clamp_sliding_window": False},
        "not causal": {"causal": True},
        "every other": {"causal": torch.tensor([False, True, False])},
    }
    for name, wrong in wrongs.items():
        x = Inputs(KINDS[name], 3, "cpu")
        run = computed(KINDS[name], x)
        assert run() < 0.006, name
        assert run(**wrong) > problems.WRONG, name
        x.out.fill_(float("nan"))
        assert math.isnan(problems_cases.sampled_error(KINDS[name], x))
    y = vision.Inputs(IMAGES, 0, "cpu")
    right = vision.sdpa_each(IMAGES, [y])[0]()
    assert vision.sampled_error(IMAGES, y, right) < 0.006
    for wrong_images in (right.roll(1, 0), right.roll(1, 1), y.value):
        assert vision.sampled_error(IMAGES, y, wrong_images) > problems.WRONG
    assert math.isnan(vision.sampled_error(IMAGES, y, y.out))


def test_work_is_that_of_the_pairs_that_are_seen():
    """Against pairs counted one by one, and the plain cases of the other benchmark."""
    for name, case in KINDS.items():
        pairs, keys = 0, 0
        for r, length in enumerate(case.lens):
            seen = masked(
                length - case.query_len,
                length,
                case.query_len,
                case.window,
                case.is_causal(r),
                case.images,
                case.clamped,
            )
            pairs, keys = pairs + int(seen.sum()), keys + int(seen.any(0).sum())
        assert case.flops == 4 * case.heads * case.head * pairs, name
        of_queries = 2 * case.heads * case.tokens
        assert case.bytes == 2 * case.head * (2 * case.kv_heads * keys + of_queries), name
    every: list[Case | vision.Case] = [*problems_cases.CASES, *vision.CASES]
    assert len({(getattr(case, "kind", "vision"), case.name) for case in every}) == len(every)
    assert problems_cases.alibi_slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert problems_cases.alibi_slopes(6).tolist() == [0.25, 0.0625, 2**-6, 2**-8, 0.5, 0.125]


def test_vllm_operations_are_called_as_they_are_declared(monkeypatch):
    """Stand-ins with the installed vLLM's parameters get the right results from what the benchmark passes."""
    triton = pytest.importorskip("vllm.v1.attention.ops.triton_unified_attention")
    flash = flash_attn_interface(monkeypatch, pytest.importorskip("vllm"))

    def replace_by(owner, name, function):
        signature = inspect.signature(getattr(owner, name))

        def call(*arguments, **named):
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
            return function(bound.arguments)

        monkeypatch.setattr(owner, name, call)

    def flash_attention(a):
        assert a["fa_version"] == 3
        if a["block_table"] is not None:
            assert a["scheduler_metadata"] == ("schedule", tuple(a["window_size"]), a["causal"])
            return paged(a)
        starts = a["cu_seqlens_q"].tolist()
        for at in (slice(*starts[i : i + 2]) for i in range(len(starts) - 1)):
            seen = torch.ones(at.stop - at.start, at.stop - at.start, dtype=torch.bool)
            a["out"][at] = attend(a["q"][at], a["k"][at], a["v"][at], a["softmax_scale"], seen)
        return a["out"]

    replace_by(triton, "unified_attention", paged)
    replace_by(flash, "flash_attn_varlen_func", flash_attention)
    replace_by(flash, "get_scheduler_metadata", lambda a: ("schedule", tuple(a["window_size"]), a["causal"]))
    for name, case in KINDS.items():
        row = problems.paged(case, CEILING, problems_peers.PEERS, "cpu")
        assert problems_peers.INVARIANT not in problems_peers.available(case)
        takes = name in ("cap", "cap and window", "sinks", "not causal", "72", "decode")
        assert list(row["results"]) == list(problems_peers.PEERS[: 1 + takes]), name
        assert all(result["error"] < 0.006 for result in row["results"].values()), (name, row["results"])
        assert "plan_ms" not in row
    row = problems.images(IMAGES, CEILING, [vision.FLASH_ATTENTION], "cpu")
    assert row["results"][vision.FLASH_ATTENTION]["error"] < 0.006


def test_results_become_tables(tmp_path, monkeypatch, capsys):
    """All cases that are asked for, what there was no time for, and a wrong result of ours, which is an error."""
    error = SimpleNamespace(now=0.001)
    monkeypatch.setattr(problems, "ceilings", lambda: CEILING)
    monkeypatch.setattr(problems, "said", lambda ceiling: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")

    def made(case, ceiling, only):
        times = {compare.OURS: 0.5, "vLLM Triton": 2.5, "FlashAttention-3": 0.4, vision.EACH: 0.75}
        results = {n: {"ms": t, "of_floor": 0.1, "host_us": 7.0, "error": error.now} for n, t in times.items()}
        return {"case": case.name, "kind": getattr(case, "kind", ""), "plan_ms": 0.01, "results": results}

    monkeypatch.setattr(problems, "paged", made)
    monkeypatch.setattr(problems, "images", made)
    source, document = tmp_path / "r.json", tmp_path / "d.md"
    command = [
        "problems.py",
        "--out",
        str(source),
        "--cases",
        "soft cap, prefill 4x2k 32/16",
        "gpt-oss, decode",
        "CLIP",
    ]
    monkeypatch.setattr(sys, "argv", command)
    problems.main()
    means = json.loads(source.read_text())["summary"]
    assert means["gpt-oss, decode vs FlashAttention-3"] == pytest.approx(0.8)
    assert means["soft cap, prefill vs vLLM Triton"] == pytest.approx(5.0)
    assert means[f"vision vs {vision.EACH}"] == pytest.approx(1.5)
    document.write_text("<!-- problems -->\n<!-- /problems -->\n")
    table.main(str(source), str(document))
    text = document.read_text()
    assert "| soft cap | prefill 4x2k 32/16 | 0.5 | 10% | 0.01 | 7.0 | 2.5 (5.00x) | 0.4 (0.80x) |  |" in text
    assert text.count("| gpt-oss | decode") == 3 and text.count("| CLIP of LLaVA, 32 images of 577, 16x64 | 0.5 |") == 1
    assert "| soft cap, prefill | 1 | 5.00x, least 5.00x | 0.80x, least 0.80x |" in text
    assert "Largest error of ours: 1.0e-03." in text and "left out" not in text
    monkeypatch.setattr(sys, "argv", [*command[:3], "--quick", "--budget", "0"])
    problems.main()
    assert "left out, as the budget was spent: CLIP of LLaVA, 32 images of 577, 16x64;" in capsys.readouterr().out
    error.now = math.nan
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match="results are wrong: prefill 4x2k 32/16: nan"):
        problems.main()
