# SPDX-License-Identifier: Apache-2.0
"""The benchmark of multi-head latent attention without a GPU: what checks results, ours, how peers are called."""

from __future__ import annotations

import inspect
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from benchmarks.kernels import compare, mla, mla_cases, mla_peers
from benchmarks.kernels.mla_cases import LATENT, Case, Inputs, PrefillCase, PrefillInputs
from benchmarks.report import table

DECODE = Case("tiny", (70, 33, 5), 3, query_len=2, page=16)
PREFILL = PrefillCase("tiny prompt", 40, 40, 2, 256, 256, True)
CONTEXT = PrefillCase("tiny context", 9, 75, 2, 192, 128, False)
CEILING = {"copy": 4e12, "product": 7e14}


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Every call is made once, and said to take half a millisecond."""
    monkeypatch.setattr(compare, "device_and_host", lambda calls: ([call() for call in calls] and 0.5, 0.0, 7.5))
    monkeypatch.setattr(mla, "device_and_host", compare.device_and_host)
    monkeypatch.setattr(mla, "sets_of", lambda case: 2)


def attend(query, key, value, scale, causal):
    """Attention of one request in fp64: [tokens, heads, dims] of all; and its log-sum-exp [heads, tokens]."""
    scores = torch.einsum("qhd,khd->hqk", query.double(), key.double()) * scale
    if causal:
        seen = key.shape[0] - query.shape[0] + 1 + torch.arange(query.shape[0])
        scores.masked_fill_(torch.arange(key.shape[0]) >= seen[:, None], -torch.inf)
    out = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value.double())
    return out.to(query.dtype), scores.logsumexp(-1).float()


def cached(pages, table, length):
    """The cached rows of a request, in order."""
    return pages[table.long()].flatten(0, 1)[:length]


def decoded(case, x):
    """The right result of a decode case."""
    out = torch.empty_like(x.out)
    for r, length in enumerate(case.lens):
        at = slice(r * case.query_len, (r + 1) * case.query_len)
        rows = cached(x.pages, x.block_table[r], length)[:, None].expand(-1, case.heads, -1)
        out[at], _ = attend(x.query[at], rows, rows[..., :LATENT], case.scale, True)
    return out


def test_floors_are_those_that_peers_were_first_held_to():
    """Milliseconds at 4268 GB/s and 687 TFLOP/s, by hand for three cases: by memory, by products, by pairs."""
    every: list[Case | PrefillCase] = [*mla_cases.CASES, *mla_cases.PREFILL]
    cases = {case.name: case for case in every}
    assert len(mla_cases.CASES) == 14 and len(cases) == 18
    assert cases["b1 128k h20"].bytes / 4268e9 * 1e3 == pytest.approx(0.0354, abs=5e-5)
    assert cases["b32 4k h128"].flops / 687e12 * 1e3 == pytest.approx(0.0531, abs=5e-5)
    assert cases["1x2k, 20 heads 256/256, causal"].flops / 687e12 * 1e3 == pytest.approx(0.0625, abs=5e-5)
    assert [mla_cases.triton_splits(n, 132) for n in (40, 1100, 8192, 200_000)] == [1, 2, 16, 264]
    assert sum(mla_cases.sets_of(case) * case.bytes > mla_cases.L2_BYTES for case in cases.values()) == len(cases)


def test_wrong_results_are_caught():
    """Of another token, without causality, of the last key alone; log-sum-exp in base 2, or not written."""
    x = Inputs(DECODE, 0, "cpu")
    right = decoded(DECODE, x)
    assert mla_cases.sampled_error(DECODE, x, right) < 0.004
    last = [cached(x.pages, table, n)[-1:, :LATENT] for table, n in zip(x.block_table, DECODE.lens, strict=True)]
    blind = decoded(replace(DECODE, lens=tuple(n - 1 for n in DECODE.lens)), x)
    for wrong in (
        right.roll(1, 0),
        right.roll(1, 1),
        blind,
        torch.stack(last).repeat_interleave(2, 0).expand(-1, 3, -1),
    ):
        assert mla_cases.sampled_error(DECODE, x, wrong) > mla.WRONG
    assert math.isnan(mla_cases.sampled_error(DECODE, x, x.out))
    for case in (PREFILL, CONTEXT):
        y = PrefillInputs(case, 0, "cpu")
        out, log_sums = attend(y.query, y.key, y.value, case.scale, case.causal)
        assert mla_cases.sampled_prefill_error(case, y, out, log_sums) < 0.004
        assert mla_cases.sampled_prefill_error(case, y, out, log_sums / math.log(2)) > mla.WRONG
        assert math.isnan(mla_cases.sampled_prefill_error(case, y, out, y.lse))
        assert mla_cases.sampled_prefill_error(case, y, out.roll(1, 0), log_sums) > mla.WRONG


@pytest.mark.parametrize(
    "case", [DECODE, replace(DECODE, query_len=1, heads=20)], ids=lambda c: f"{c.query_len}x{c.heads}"
)
def test_our_decode_is_right(case):
    row = mla.decode(case, CEILING, [compare.OURS], "cpu")
    assert row["results"][compare.OURS]["error"] < 0.005 and row["plan_ms"] == 0.5


@pytest.mark.parametrize("case", [PREFILL, CONTEXT], ids=lambda case: case.name)
def test_our_prefill_is_right(case):
    row = mla.prefill(case, CEILING, [compare.OURS], "cpu")
    assert row["results"][compare.OURS]["error"] < 0.005 and row["plan_ms"] == 0.5


def triton_decode(a):
    """A row of the query is a request of one token."""
    assert a["att_out" if "att_out" in a else "attn_logits"].shape[2] == a["num_kv_splits"] and a["is_mla"]
    for i, length in enumerate(a["b_seq_len"].tolist()):
        pages = a["k_buffer"].squeeze(2)
        assert a["page_size"] == pages.shape[1] and torch.equal(a["v_buffer"].squeeze(2), pages[..., :LATENT])
        rows = cached(pages, a["req_to_token"][i], length)[:, None].expand(-1, a["q"].shape[1], -1)
        a["o"][i], _ = attend(a["q"][i : i + 1], rows, rows[..., :LATENT], a["sm_scale"], True)


def flash_attention(a):
    """Paged with q_v, or plain keys."""
    assert a["fa_version"] == 3
    starts = a["cu_seqlens_q"].tolist()
    results = []
    for r in range(len(starts) - 1):
        query = a["q"][starts[r] : starts[r + 1]]
        assert len(query) <= a["max_seqlen_q"]
        if a["block_table"] is None:
            key, value = (x[slice(*a["cu_seqlens_k"][r : r + 2].tolist())] for x in (a["k"], a["v"]))
        else:
            length = int(a["seqused_k"][r])
            assert a["scheduler_metadata"] == ("schedule", a["num_splits"])
            rotated, value = (
                cached(x, a["block_table"][r], length).expand(-1, query.shape[1], -1) for x in (a["k"], a["v"])
            )
            key = torch.cat((value, rotated), -1)
            query = torch.cat((a["q_v"][starts[r] : starts[r + 1]], query), -1)
        assert len(key) <= a["max_seqlen_k"]
        results.append(attend(query, key, value, a["softmax_scale"], a["causal"]))
    out, log_sums = torch.cat([r[0] for r in results]), torch.cat([r[1] for r in results], 1)
    return (out, log_sums) if a["return_softmax_lse"] else out


def triton_prefill(a):
    starts, lens = a["b_start_loc"].tolist(), a["b_seq_len"].tolist()
    assert len(starts) == len(lens) and a["max_input_len"] == max(lens)
    for at, length in zip(starts, lens, strict=True):
        part = slice(at, at + length)
        a["o"][part], _ = attend(a["q"][part], a["k"][part], a["v"][part], a["softmax_scale"], a["is_causal"])


def flash_mla_with_kvcache(
    q, k_cache, block_table, cache_seqlens, head_dim_v, tile_scheduler_metadata, softmax_scale, causal, is_fp8_kvcache
):
    """FlashMLA's function, of which vLLM's CPU build has no declaration."""
    assert tile_scheduler_metadata == "schedule" and causal and not is_fp8_kvcache
    results = []
    for r, length in enumerate(cache_seqlens.tolist()):
        rows = cached(k_cache.squeeze(2), block_table[r], length)[:, None].expand(-1, q.shape[2], -1)
        results.append(attend(q[r], rows, rows[..., :head_dim_v], softmax_scale, True)[0])
    return torch.stack(results), None


def flash_attn_interface(monkeypatch, vllm):
    """vLLM's Python around FlashAttention, whose package refuses to be imported without its CUDA code."""
    package = "vllm.vllm_flash_attn"
    path = Path(vllm.__file__).parent / "vllm_flash_attn" / "flash_attn_interface.py"
    module = ModuleType(f"{package}.flash_attn_interface")
    module.__package__, module.__file__ = package, str(path)
    monkeypatch.setitem(sys.modules, package, ModuleType(package))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(path.read_text(), path, "exec"), vars(module))
    return module


def test_vllm_operations_are_called_as_they_are_declared(monkeypatch):
    """Stand-ins with the installed vLLM's parameters get the right results from what the benchmark passes."""
    decode = pytest.importorskip("vllm.v1.attention.ops.triton_decode_attention")
    prefill = pytest.importorskip("vllm.v1.attention.ops.triton_prefill_attention")
    flash = flash_attn_interface(monkeypatch, pytest.importorskip("vllm"))
    flashmla = ModuleType("flashmla")
    vars(flashmla).update(
        flash_mla_with_kvcache=flash_mla_with_kvcache, get_mla_metadata=lambda *a, **k: ("schedule", None)
    )
    monkeypatch.setitem(sys.modules, "vllm.v1.attention.ops.flashmla", flashmla)

    def replace_by(owner, name, function):
        signature = inspect.signature(getattr(owner, name))

        def call(*arguments, **named):
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
            return function(bound.arguments)

        monkeypatch.setattr(owner, name, call)

    replace_by(decode, "decode_attention_fwd", triton_decode)
    replace_by(prefill, "context_attention_fwd", triton_prefill)
    replace_by(flash, "flash_attn_varlen_func", flash_attention)
    replace_by(flash, "get_scheduler_metadata", lambda a: ("schedule", a["num_splits"]))
    units = SimpleNamespace(multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: units)
    peers = list(mla_peers.PEERS)
    row = mla.decode(DECODE, CEILING, peers, "cpu")
    assert list(row["results"]) == peers and all(r["error"] < 0.005 for r in row["results"].values())
    for case, takes in ((PREFILL, peers[:2]), (CONTEXT, peers[1:2])):
        row = mla.prefill(case, CEILING, peers, "cpu")
        assert list(row["results"]) == takes and all(r["error"] < 0.005 for r in row["results"].values())
        assert "plan_ms" not in row


def test_results_become_a_table(tmp_path, monkeypatch):
    """All cases that are asked for, what they say in the end, and a wrong result of ours, which is an error."""
    error = SimpleNamespace(now=0.001)
    monkeypatch.setattr(mla, "ceilings", lambda: CEILING)
    monkeypatch.setattr(mla, "said", lambda ceiling: "")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")

    def made(case, ceiling, only):
        times = {compare.OURS: 0.5, "vLLM Triton": 1.0, "FlashAttention-3": 0.4}
        results = {n: {"ms": t, "of_floor": 0.1, "host_us": 7.0, "error": error.now} for n, t in times.items()}
        return {"case": case.name, "plan_ms": 0.01, "results": results}

    monkeypatch.setattr(mla, "decode", made)
    monkeypatch.setattr(mla, "prefill", made)
    source, document = tmp_path / "r.json", tmp_path / "d.md"
    monkeypatch.setattr(sys, "argv", ["mla.py", "--out", str(source), "--cases", "b1 8k", "b1 32k h128", "1x4k"])
    mla.main()
    assert json.loads(source.read_text())["summary"]["decode vs FlashAttention-3"] == pytest.approx(0.8)
    document.write_text("<!-- mla -->\n<!-- /mla -->\n")
    table.main(str(source), str(document))
    text = document.read_text()
    assert "| b1 8k h20 | 0.5 | 10% | 0.01 | 7.0 | 1 (2.00x) | 0.4 (0.80x) |  |" in text
    assert "| 1x4k, 16 heads 192/128, causal | 0.5 |" in text and text.count("\n| ") == 5
    assert "Largest error of ours: 1.0e-03. Geometric means: decode vs vLLM Triton 2.00x;" in text
    error.now = math.nan
    with pytest.raises(SystemExit, match="results are wrong: b1 8k h20: nan"):
        mla.main()
