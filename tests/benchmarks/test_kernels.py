# SPDX-License-Identifier: Apache-2.0
"""benchmarks/kernels without a GPU: the check of results, the contestants, the clock, the counters."""

from __future__ import annotations

import inspect
import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

import rocmforge_plugin
from benchmarks.kernels import attention, attention_cases, attention_peers, compare, counters, cpu, timing
from benchmarks.kernels import elementwise as bench
from benchmarks.kernels import elementwise_cases as cases
from benchmarks.kernels import elementwise_peers as peers
from benchmarks.report import table
from rocmforge_plugin import _C, ops


def write(batch, key):
    ops.kv_write(key, batch.heads(batch.value), batch.kv_cache, batch.slots)


def test_elementwise_contestants_that_compute_are_right():
    """Ours on the CPU target, and torch's formulas as they are given to inductor."""
    for model in cases.MODELS:
        batch = cases.Batch(model, 21, "cpu")
        for kind in cases.KINDS:
            assert bench.error_of(peers.ours(kind), batch, kind) < 0.004, (model.name, kind)
            if kind != cases.WRITE:
                call = peers.torch_rotary(kind, write, peers.as_it_is)
                assert bench.error_of(call, batch, kind) < 0.004, (model.name, kind)


@pytest.mark.parametrize("model", cases.LATENT_MODELS, ids=lambda model: model.name)
def test_writes_of_latents(model):
    """Ours on the CPU target is right; nothing at all, unrotated keys and the other kind of pairs are not."""
    batch = cases.LatentBatch(model, 21, "cpu")
    for kind in cases.LATENT_KINDS:
        assert bench.error_of(peers.ours(kind), batch, kind) < 0.004, kind
        assert not bench.error_of(lambda b: None, batch, kind) <= bench.WRONG
    assert bench.error_of(peers.ours(cases.LATENT_WRITE), batch, cases.LATENT_BOTH) > bench.WRONG
    assert bench.error_of(peers.ours(cases.LATENT_BOTH), batch, cases.LATENT_WRITE) > bench.WRONG
    other = cases.LatentModel(model.name, model.heads, model.nope, not model.interleaved)
    assert bench.error_of(peers.ours(cases.LATENT_BOTH), cases.LatentBatch(other, 21, "cpu"), cases.LATENT_BOTH) < 0.004

    def other_pairs(b):
        b.model = other
        peers.ours(cases.LATENT_BOTH)(b)
        b.model = model

    assert bench.error_of(other_pairs, batch, cases.LATENT_BOTH) > bench.WRONG


def stand_ins():
    """vLLM's operations by what their documentation says, on tensors given by their parameters' names."""
    from rocmforge_plugin import reference

    def flash_write(a):
        slots = a["slot_mapping"]
        block = a["key_cache"].shape[1]
        a["key_cache"][slots // block, slots % block] = a["key"]
        a["value_cache"][slots // block, slots % block] = a["value"]

    def rotary_embedding(a):
        for x in (a["query"], a["key"]):
            x.copy_(
                reference.rotary(
                    a["positions"], x, a["cos_sin_cache"], head_size=a["head_size"], interleaved=not a["is_neox"]
                )
            )

    def fused_qk_norm_rope(a):
        heads = a["qkv"].unflatten(1, (-1, a["head_dim"]))
        at = 0
        for count, weight in ((a["num_heads_q"], a["q_weight"]), (a["num_heads_k"], a["k_weight"])):
            part = heads[:, at : at + count]
            normal = reference.rms_norm(part, weight, a["eps"])
            part.copy_(
                reference.rotary(
                    a["position_ids"], normal, a["cos_sin_cache"], head_size=a["head_dim"], interleaved=not a["is_neox"]
                )
            )
            at += count

    def fused_qknorm_rope_cache(a):
        qkv = a["qkv"].clone()
        fused_qk_norm_rope(
            {
                **a,
                "qkv": qkv,
                "num_heads_q": a["num_q_heads"],
                "num_heads_k": a["num_kv_heads"],
                "position_ids": a["positions"],
                "is_neox": True,
            }
        )
        counts = [a["num_q_heads"], a["num_kv_heads"], a["num_kv_heads"]]
        q, k, v = qkv.unflatten(1, (-1, a["head_dim"])).split(counts, 1)
        flash_write({**a, "key": k, "value": v})
        return q.flatten(1), k.flatten(1), v.flatten(1)

    def concat_and_cache_mla(a):
        row = torch.cat((a["kv_c"], a["k_pe"]), -1)
        a["kv_cache"].copy_(reference.latent_kv_write(row, None, a["kv_cache"], a["slot_mapping"]))

    def concat_and_cache_mla_rope_fused(a):
        rotary_embedding({**a, "query": a["q_pe"], "key": a["k_pe"], "head_size": a["q_pe"].shape[-1]})
        concat_and_cache_mla({**a, "k_pe": a["k_pe"].squeeze(1)})

    return {
        "concat_and_cache_mla": concat_and_cache_mla,
        "concat_and_cache_mla_rope_fused": concat_and_cache_mla_rope_fused,
        "reshape_and_cache_flash": flash_write,
        "rotary_embedding": rotary_embedding,
        "fused_qk_norm_rope": fused_qk_norm_rope,
        "fused_qknorm_rope_cache": fused_qknorm_rope_cache,
    }


def test_vllm_operations_are_called_as_they_are_declared(monkeypatch):
    """Stand-ins with the installed vLLM's parameters get the right results from what the benchmark passes."""
    vllm_ops = pytest.importorskip("vllm._custom_ops")
    triton = pytest.importorskip("vllm.v1.attention.ops.triton_reshape_and_cache_flash")
    made = stand_ins()

    def replace(owner, name, function):
        signature = inspect.signature(getattr(owner, name))

        def call(*arguments, **named):
            bound = signature.bind(*arguments, **named)
            bound.apply_defaults()
            return function(bound.arguments)

        monkeypatch.setattr(owner, name, call)

    replace(triton, "triton_reshape_and_cache_flash", made["reshape_and_cache_flash"])
    found = [name for name in made if hasattr(vllm_ops, name)]
    assert {"reshape_and_cache_flash", "rotary_embedding", "concat_and_cache_mla"} <= set(found)
    for name in found:
        replace(vllm_ops, name, made[name])
    monkeypatch.setattr(peers, "compiled", peers.as_it_is)
    for model in cases.MODELS:
        batch = cases.Batch(model, 21, "cpu")
        for kind in cases.KINDS:
            contestants = {"vLLM CUDA": peers.vllm_cuda} if kind != cases.BOTH_OUT else {}
            if kind == cases.NORM and "fused_qk_norm_rope" not in found:
                contestants = {}
            if kind == cases.NORM and not model.interleaved and "fused_qknorm_rope_cache" in found:
                contestants["vLLM one launch"] = peers.vllm_one_launch
            contestants["triton"] = peers.vllm_triton if kind == cases.WRITE else peers.inductor
            for name, make in contestants.items():
                assert bench.error_of(make(kind), batch, kind) < 0.004, (model.name, kind, name)
    for layer in cases.LATENT_MODELS:
        latents = cases.LatentBatch(layer, 21, "cpu")
        for kind in cases.LATENT_KINDS:
            makers = [peers.vllm_cuda_latent]
            if kind == cases.LATENT_BOTH and "concat_and_cache_mla_rope_fused" in found:
                makers.append(peers.vllm_one_launch_latent)
            for make in makers:
                assert bench.error_of(make(kind), latents, kind) < 0.004, (layer.name, kind, make)


@pytest.mark.parametrize("model", [cases.MODELS[1], cases.LATENT_MODELS[0]], ids=lambda model: model.name)
def test_elementwise_rows(monkeypatch, capsys, model):
    """Of all contestants that are here; one that refuses is named, one that is wrong is marked, ours may do neither."""

    def refuses(kind):
        def call(batch):
            raise ValueError("not this case")

        return call

    make = cases.LatentBatch if isinstance(model, cases.LatentModel) else cases.Batch
    monkeypatch.setattr(bench, "batches", lambda model, tokens: [make(model, tokens, "cpu", i) for i in (0, 1)])
    monkeypatch.setattr(timing, "milliseconds", lambda calls: ([call() for call in calls] and 0.5, 0.0))
    monkeypatch.setattr(timing, "host_microseconds", lambda calls: [call() for call in calls] and 7.5)
    monkeypatch.setattr(
        peers,
        "available",
        lambda kind, interleaved: {
            peers.OURS: peers.ours,
            "vLLM CUDA": refuses,
            "torch": lambda kind: lambda batch: None,
        },
    )
    rows = bench.measure(model, 5, 1e12, [])
    assert [row["kernel"] for row in rows] == list(model.kinds)
    for row in rows:
        assert row["results"].keys() == {peers.OURS, "torch"}
        assert row["results"]["torch"]["wrong"] and not row["results"][peers.OURS]["wrong"]
        assert row["results"][peers.OURS]["host_us"] == 7.5
        assert row["results"][peers.OURS]["gb_s"] == pytest.approx(row["bytes"] / 0.5e-3 / 1e9)
    shown = capsys.readouterr().out
    assert shown.count("does not take this case: not this case") == shown.count("WRONG RESULT") == len(model.kinds)
    monkeypatch.setattr(peers, "available", lambda kind, interleaved: {peers.OURS: refuses})
    with pytest.raises(ValueError, match="not this case"):
        bench.measure(model, 5, 1e12, [])


def test_attention_rows(monkeypatch, capsys):
    """Of whoever takes a case; a peer that refuses is named, ours may not; means over the cases that have both."""

    def refuses(case, sets):
        raise MemoryError("not this case")

    def idle(case, sets):
        return [lambda: None for _ in sets]

    monkeypatch.setattr(timing, "milliseconds", lambda calls: ([call() for call in calls] and 0.5, 0.0))
    monkeypatch.setattr(timing, "host_microseconds", lambda calls: [call() for call in calls] and 7.5)
    monkeypatch.setattr(attention, "input_sets", lambda case: [attention_cases.Inputs(case, i, "cpu") for i in (0, 1)])
    contestants = {compare.OURS: attention_peers.ours, "vLLM Triton": idle, "FlashAttention-3": refuses}
    monkeypatch.setattr(attention_peers, "available", lambda case: contestants)
    ceiling = {"copy": 4e12, "product": 7e14}
    rows = [
        attention.measure(attention_cases.Case("decode a", (40, 9), 1, 4, 2), ceiling, []),
        attention.measure(attention_cases.Case("prefill b", (33,), 33, 4, 2), ceiling, []),
    ]
    assert capsys.readouterr().out.count("does not take this case: not this case") == 2
    for row in rows:
        assert row["results"].keys() == {compare.OURS, "vLLM Triton"} and row["plan_ms"] == 0.5
        assert row["results"][compare.OURS]["error"] < 0.005 and math.isnan(row["results"]["vLLM Triton"]["error"])
        assert row["floor_ms"] == pytest.approx(1e3 * max(row["bytes"] / 4e12, row["flops"] / 7e14))
    rows[0]["results"]["vLLM Triton"]["ms"] = 2.0
    assert attention.summary(rows) == pytest.approx({"decode vs vLLM Triton": 4.0, "prefill vs vLLM Triton": 1.0})
    contestants[compare.OURS] = refuses
    with pytest.raises(MemoryError):
        attention.measure(attention_cases.Case("decode a", (40, 9), 1, 4, 2), ceiling, [])


def test_host_time_is_of_calls_in_a_row(monkeypatch):
    """The call behind a wait is slower and does not count; of a row's calls it is the median."""
    clock, row = SimpleNamespace(now=0.0, since_wait=0), []

    def call():
        clock.now += 40e-6 if clock.since_wait == 0 else 5e-6
        clock.since_wait += 1
        row.append(clock.since_wait)

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: setattr(clock, "since_wait", 0))
    assert timing.host_microseconds([call, call]) == pytest.approx(5.0)
    assert max(row) == timing.HOST_ROW + 1 and clock.now >= timing.HOST_SECONDS


def test_elementwise_contestants_that_compute_nothing_are_caught():
    """Nothing at all; only keys; into the wrong slots; the other kind of pairs."""
    batch = cases.Batch(cases.MODELS[0], 21, "cpu")

    def wrong(kind, call):
        return not bench.error_of(call, batch, kind) <= bench.WRONG

    for kind in cases.KINDS:
        assert wrong(kind, lambda b: None), kind
        if kind not in (cases.ROTARY, cases.WRITE):
            assert wrong(kind, lambda b: write(b, b.heads(b.key))), kind
    assert wrong(cases.WRITE, lambda b: ops.kv_write(b.heads(b.key), b.heads(b.key), b.kv_cache, b.slots))

    def elsewhere(b):
        write(b, b.heads(b.key))
        free = torch.ones(b.pages.shape[0] * cases.BLOCK, dtype=torch.bool)
        free[b.slots] = False
        b.pages.flatten(0, 1)[free.nonzero()[0]] = 0

    assert math.isinf(bench.error_of(elsewhere, batch, cases.WRITE))
    assert wrong(
        cases.ROTARY,
        lambda b: ops.rotary(
            b.positions, b.query, b.key, b.table, head_size=cases.HEAD, interleaved=not b.model.interleaved
        ),
    )


def test_cpu_benchmark(monkeypatch, capsys):
    """Every case on each number of threads; a wrong result ends it."""
    before = torch.get_num_threads(), _C.cpu_threads()
    monkeypatch.setattr(cpu, "SECONDS", 0.0)
    monkeypatch.setattr(cpu, "TOKENS", 5)
    monkeypatch.setattr(cpu, "MASK", (2, 8, 16))
    monkeypatch.setattr(
        cpu,
        "CASES",
        (attention_cases.Case("decode", (40, 9), 1, 4, 2), attention_cases.Case("prefill", (33,), 33, 4, 2)),
    )
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--threads", "2", "1"])
    earlier = rocmforge_plugin.launches()
    try:
        cpu.main()
        head, *lines = capsys.readouterr().out.splitlines()
        assert "ms on 1 thread, 2 threads" in head and len(lines) == 5
        assert all(line.count("x)") == 2 for line in lines)
        ran = {name for name, count in rocmforge_plugin.launches().items() if count > earlier.get(name, 0)}
        for part in ("attention_decode", "attention_prefill", "rotary_kv_write", "norm_rotary_kv_write", "causal_mask"):
            assert any(name.startswith(part) for name in ran), part
        monkeypatch.setattr(attention_peers, "ours", lambda case, sets: [lambda: None])
        with pytest.raises(SystemExit, match="the result is wrong"):
            cpu.main()
    finally:
        torch.set_num_threads(before[0])
        _C.set_cpu_threads(before[1])


@pytest.mark.parametrize("shape", [(3, 17, 40), (32, 64, 8256)], ids=str)
def test_causal_mask_check(shape):
    mask = cases.Mask(shape, "cpu")
    assert mask.error() == 1.0 > bench.WRONG
    for name, call in peers.masks().items():
        if name != "inductor":
            mask.reset()
            call(mask)
            assert mask.error() == 0.0, name


NCU = """#!{python}
import csv, sys
def of(option):
    return sys.argv[sys.argv.index(option) + 1]
if "rotary" not in of("--launch"):
    sys.exit("no such counters")
head = ["ID", "Kernel Name", *of("--metrics").split(",")]
with open(of("--log-file"), "w") as file:
    print("==PROF== Connected", file=file)
    table = csv.writer(file, quoting=csv.QUOTE_ALL)
    table.writerows([head, [""] * len(head)])
    for i, time in enumerate(("3,000", "1,000", "2,000", "40")):
        name = "void other<(int)3>(float *)" if time == "40" else "rotary_v16_bf16"
        table.writerow([i, name, time, *["n/a" if "gmma" in metric else "50" for metric in head[3:]]])
"""


def test_counters(tmp_path, monkeypatch, capsys):
    """From what ncu writes to a table; here a stand-in for it, which knows the counters that it was asked for."""
    fake, out, document = tmp_path / "ncu", tmp_path / "counters.json", tmp_path / "d.md"
    fake.write_text(NCU.replace("{python}", sys.executable))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", ["counters.py", "--out", str(out), "--cases", "GLM-4-9B 32/2 rotary"])
    assert counters.main() == 0
    assert "2.0 us" in capsys.readouterr().out
    first, second, *_ = json.loads(out.read_text())["counters"]
    assert first["kernel"] == "rotary_v16_bf16" and first["launches"] == 3 and first["us"] == pytest.approx(2.0)
    assert second["kernel"] == "other" and second["DRAM"] == pytest.approx(0.5)
    assert math.isnan(first["waits"]["products"])
    document.write_text("<!-- counters -->\n<!-- /counters -->\n")
    table.main(str(out), str(document))
    assert "`rotary_v16_bf16` | 2.0 |" in document.read_text() and "other" not in document.read_text()
    monkeypatch.setattr(sys, "argv", ["counters.py", "--cases", "prefill 1x16k"])
    with pytest.raises(RuntimeError, match="ncu ended with 1: no such counters"):
        counters.main()
    with pytest.raises(ValueError, match="wrote no table"):
        counters.rows("==PROF== No kernels were profiled.")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match="ncu is not on the PATH"):
        counters.main()
