# SPDX-License-Identifier: Apache-2.0
"""The benchmarks without a GPU: their check of results, their server, and the way from results to a document."""

from __future__ import annotations

import importlib
import inspect
import json
import math
import pathlib
import sys
import time

import pytest
import torch

import rocmforge_plugin
from rocmforge_plugin import ops

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Imports one of the benchmarks' modules, which import each other as scripts do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def write(batch, key):
    ops.kv_write(key, batch.heads(batch.value), batch.kv_cache, batch.slots)


def test_elementwise_contestants_that_compute_are_right(module):
    """Ours on the CPU target, and torch's formulas as they are given to inductor."""
    cases, peers, bench = (module(f"elementwise{part}") for part in ("_cases", "_peers", ""))
    for model in cases.MODELS:
        batch = cases.Batch(model, 21, "cpu")
        for kind in cases.KINDS:
            assert bench.error_of(peers.ours(kind), batch, kind) < 0.004, (model.name, kind)
            if kind != cases.WRITE:
                call = peers.torch_rotary(kind, write, peers.as_it_is)
                assert bench.error_of(call, batch, kind) < 0.004, (model.name, kind)


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
            x.copy_(reference.rotary(a["positions"], x, a["cos_sin_cache"], head_size=a["head_size"],
                                     interleaved=not a["is_neox"]))

    def fused_qk_norm_rope(a):
        heads = a["qkv"].unflatten(1, (-1, a["head_dim"]))
        at = 0
        for count, weight in ((a["num_heads_q"], a["q_weight"]), (a["num_heads_k"], a["k_weight"])):
            part = heads[:, at:at + count]
            normal = reference.rms_norm(part, weight, a["eps"])
            part.copy_(reference.rotary(a["position_ids"], normal, a["cos_sin_cache"], head_size=a["head_dim"],
                                        interleaved=not a["is_neox"]))
            at += count

    def fused_qknorm_rope_cache(a):
        qkv = a["qkv"].clone()
        fused_qk_norm_rope({**a, "qkv": qkv, "num_heads_q": a["num_q_heads"], "num_heads_k": a["num_kv_heads"],
                            "position_ids": a["positions"], "is_neox": True})
        counts = [a["num_q_heads"], a["num_kv_heads"], a["num_kv_heads"]]
        q, k, v = qkv.unflatten(1, (-1, a["head_dim"])).split(counts, 1)
        flash_write({**a, "key": k, "value": v})
        return q.flatten(1), k.flatten(1), v.flatten(1)

    return {"reshape_and_cache_flash": flash_write, "rotary_embedding": rotary_embedding,
            "fused_qk_norm_rope": fused_qk_norm_rope, "fused_qknorm_rope_cache": fused_qknorm_rope_cache}


def test_vllm_operations_are_called_as_they_are_declared(module, monkeypatch):
    """Stand-ins with the installed vLLM's parameters get the right results from what the benchmark passes."""
    vllm_ops = pytest.importorskip("vllm._custom_ops")
    triton = pytest.importorskip("vllm.v1.attention.ops.triton_reshape_and_cache_flash")
    cases, peers, bench = (module(f"elementwise{part}") for part in ("_cases", "_peers", ""))
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
    assert {"reshape_and_cache_flash", "rotary_embedding"} <= set(found)
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


def test_elementwise_rows(module, monkeypatch, capsys):
    """Of all contestants that are here; one that refuses is named, one that is wrong is marked, ours may do neither."""
    cases, peers, bench = (module(f"elementwise{part}") for part in ("_cases", "_peers", ""))

    def refuses(kind):
        def call(batch):
            raise ValueError("not this case")

        return call

    monkeypatch.setattr(bench, "batches", lambda model, tokens: [cases.Batch(model, tokens, "cpu", i) for i in (0, 1)])
    monkeypatch.setattr(module("timing"), "milliseconds", lambda calls: ([call() for call in calls] and 0.5, 0.0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(peers, "available", lambda kind, interleaved: {
        peers.OURS: peers.ours, "vLLM CUDA": refuses, "torch": lambda kind: lambda batch: None})
    rows = bench.measure(cases.MODELS[1], 5, 1e12, [])
    assert [row["kernel"] for row in rows] == list(cases.KINDS)
    for row in rows:
        assert row["results"].keys() == {peers.OURS, "torch"}
        assert row["results"]["torch"]["wrong"] and not row["results"][peers.OURS]["wrong"]
        assert 0 < row["results"]["torch"]["host_us"] < row["results"][peers.OURS]["host_us"] < 1e6
        assert row["results"][peers.OURS]["gb_s"] == pytest.approx(row["bytes"] / 0.5e-3 / 1e9)
    shown = capsys.readouterr().out
    assert shown.count("does not take this case: not this case") == shown.count("WRONG RESULT") == len(cases.KINDS)
    monkeypatch.setattr(peers, "available", lambda kind, interleaved: {peers.OURS: refuses})
    with pytest.raises(ValueError, match="not this case"):
        bench.measure(cases.MODELS[1], 5, 1e12, [])


def test_elementwise_contestants_that_compute_nothing_are_caught(module):
    """Nothing at all; only keys; into the wrong slots; the other kind of pairs."""
    cases, peers, bench = (module(f"elementwise{part}") for part in ("_cases", "_peers", ""))
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
    assert wrong(cases.ROTARY, lambda b: ops.rotary(b.positions, b.query, b.key, b.table, head_size=cases.HEAD,
                                                    interleaved=not b.model.interleaved))


def test_cpu_benchmark(module, monkeypatch, capsys):
    """Every case on each number of threads; a wrong result ends it."""
    from rocmforge_plugin import _C

    bench, cases = module("cpu"), module("cases")
    before = torch.get_num_threads(), _C.cpu_threads()
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "TOKENS", 5)
    monkeypatch.setattr(bench, "MASK", (2, 8, 16))
    monkeypatch.setattr(bench, "CASES", (cases.Case("decode", (40, 9), 1, 4, 2),
                                         cases.Case("prefill", (33,), 33, 4, 2)))
    monkeypatch.setattr(sys, "argv", ["cpu.py", "--threads", "2", "1"])
    earlier = rocmforge_plugin.launches()
    try:
        bench.main()
        head, *lines = capsys.readouterr().out.splitlines()
        assert "ms on 1 thread, 2 threads" in head and len(lines) == 5
        assert all(line.count("x)") == 2 for line in lines)
        ran = {name for name, count in rocmforge_plugin.launches().items() if count > earlier.get(name, 0)}
        for part in ("attention_decode", "attention_prefill", "rotary_kv_write", "norm_rotary_kv_write", "causal_mask"):
            assert any(name.startswith(part) for name in ran), part
        monkeypatch.setattr(bench.peers, "ours", lambda case, sets: [lambda: None])
        with pytest.raises(SystemExit, match="the result is wrong"):
            bench.main()
    finally:
        torch.set_num_threads(before[0])
        _C.set_cpu_threads(before[1])


@pytest.mark.parametrize("shape", [(3, 17, 40), (32, 64, 8256)], ids=str)
def test_causal_mask_check(module, shape):
    cases, peers, bench = (module(f"elementwise{part}") for part in ("_cases", "_peers", ""))
    mask = cases.Mask(shape, "cpu")
    assert mask.error() == 1.0 > bench.WRONG
    for name, call in peers.masks().items():
        if name != "inductor":
            mask.reset()
            call(mask)
            assert mask.error() == 0.0, name


def test_elementwise_results_become_tables(module, tmp_path):
    table, bench = module("table"), module("elementwise")

    def result(ms, error=0.001):
        return {"ms": ms, "spread_ms": 0.0, "gb_s": 1.0 / ms, "of_copy": 0.5, "error": error,
                "wrong": not error <= bench.WRONG}

    rows = [{"case": "A 32/2", "kernel": "rotary", "tokens": 64, "bytes": 1,
             "results": {"rocmforge": result(0.002), "vLLM CUDA": result(0.003), "inductor": result(0.001, math.nan)}},
            {"case": "B 96/8", "kernel": "rotary", "tokens": 1, "bytes": 1,
             "results": {"rocmforge": result(0.002), "vLLM CUDA": result(0.012)}},
            {"case": "causal mask", "kernel": "8x8", "tokens": None, "bytes": 1,
             "results": {"rocmforge": result(0.01, 0.0), "torch": result(0.02, 0.0)}}]
    summary = bench.summary(rows)
    assert summary == pytest.approx({"rotary vs vLLM CUDA": 3.0, "causal mask vs torch": 2.0})  # sqrt(1.5 * 6)
    source, document = tmp_path / "r.json", tmp_path / "d.md"
    source.write_text(json.dumps({"device": "G", "torch": "2", "vllm": "0", "ceilings": {"copy": 1e12},
                                  "elementwise": rows, "summary": summary}))
    text = "a\n<!-- elementwise -->\nold\n<!-- /elementwise -->\nb <!-- tables -->\n"
    document.write_text(text)
    table.main(str(source), str(document))
    made = document.read_text()
    assert made.startswith("a\n<!-- elementwise -->\nG, torch 2") and "old" not in made
    assert made.endswith("<!-- /elementwise -->\nb <!-- tables -->\n")
    assert "| A 32/2, 64 | 2 | 500 | 50% | 1.0e-03 | 3 (1.50x), 1.0e-03 | wrong result |" in made
    assert "| B 96/8, 1 | 2 | 500 | 50% | 1.0e-03 | 12 (6.00x), 1.0e-03 |  |" in made
    assert "**causal mask**" in made and "| 8x8 | 10 | 100 | 50% | 0.0e+00 | 20 (2.00x), 0.0e+00 |" in made
    table.main(str(source), str(document))
    assert document.read_text() == made
    document.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines <!-- elementwise -->"):
        table.main(str(source), str(document))


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


def test_counters(module, tmp_path, monkeypatch, capsys):
    """From what ncu writes to a table; here a stand-in for it, which knows the counters that it was asked for."""
    counters, table = module("counters"), module("table")
    fake, out, document = tmp_path / "ncu", tmp_path / "counters.json", tmp_path / "d.md"
    fake.write_text(NCU.replace("{python}", sys.executable))
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sys, "argv", ["counters.py", "--out", str(out), "--cases", "GLM-4-9B 32/2 rotary"])
    assert counters.main() == 0
    assert "2.0 us" in capsys.readouterr().out
    first, second, *_ = json.loads(out.read_text())["counters"]
    assert first["kernel"] == "rotary_v16_bf16" and first["launches"] == 3 and first["us"] == pytest.approx(2.0)
    assert second["kernel"] == "other" and second["DRAM"] == pytest.approx(0.5) and math.isnan(first["waits"]["products"])
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


@pytest.mark.parametrize("results", ["h200", "elementwise_h200", "bench_h200", "counters_h200"])
def test_results_stand_in_the_document(module, tmp_path, results):
    """What was measured stands in the document as the command puts it there."""
    table = module("table")
    copy = tmp_path / "d.md"
    document = FOLDER.parent / "docs" / "benchmarks_h200.md"
    copy.write_text(document.read_text())
    table.main(str(FOLDER / "results" / f"{results}.json"), str(copy))
    assert copy.read_text() == document.read_text()


def test_all_parts_are_run_and_reported(module, tmp_path, monkeypatch, capsys):
    """One that fails keeps none of the others from it; one whose tool is missing is named."""
    run = module("run")
    for part in ("attention", "elementwise", "counters"):
        (tmp_path / f"{part}.py").write_text("import pathlib, sys\nprint(*sys.argv[1:-1])\n" + (
            "sys.exit('no such case')" if part == "elementwise" else
            f"pathlib.Path(sys.argv[-1]).write_text(pathlib.Path({str(FOLDER / 'results')!r}, "
            f"{ {'attention': 'h200', 'counters': 'counters_h200'}[part] + '.json'!r}).read_text())"))
    monkeypatch.setattr(run, "SCRIPTS", tmp_path)
    monkeypatch.setattr(run.shutil, "which", lambda name: name)
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    folder = tmp_path / "new" / "results"
    monkeypatch.setattr(sys, "argv", ["run.py", str(folder)])
    assert run.main() == 1
    said = capsys.readouterr().out
    assert "done: attention, counters; failed: elementwise" in said and "no plot: matplotlib" in said
    assert said.count("left out: vLLM is not installed") == 2
    assert (folder / "attention.log").read_text() == "--sweeps --out\n"
    assert "no such case" in (folder / "elementwise.log").read_text()
    document = (FOLDER.parent / "docs" / "benchmarks_h200.md").read_text()
    report = (folder / "report.md").read_text()
    for marker in ("tables", "counters"):
        begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
        assert document.partition(begin)[2].partition(end)[0] == report.partition(begin)[2].partition(end)[0] != ""
    monkeypatch.setattr(sys, "argv", ["run.py", str(folder), "--parts", "attention,speed"])
    with pytest.raises(SystemExit):
        run.main()
    assert "--parts has speed; there are attention," in capsys.readouterr().err


SERVER = """
import http.server, pathlib, subprocess, sys
folder = pathlib.Path(sys.argv[0]).parent
if (folder / "broken").exists():
    sys.exit(3)
(folder / "child").write_text(str(subprocess.Popen(["sleep", "60"]).pid))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_bench_server_is_waited_for_and_ended(module, tmp_path, monkeypatch):
    serving_bench = module("serving_bench")
    stub = tmp_path / "serve.py"
    stub.write_text(SERVER)
    monkeypatch.setattr(serving_bench, "VLLM", (sys.executable, str(stub)))
    monkeypatch.setattr(serving_bench, "CHILDREN_SECONDS", 0.2)
    spec = {"model": "m", "backend": "TRITON_ATTN", "engine": []}
    with pytest.raises(KeyError, match="as planned"), serving_bench.server(spec) as url:
        child = int((tmp_path / "child").read_text())
        assert alive(child) and url.startswith("http://127.0.0.1:")
        raise KeyError("as planned")
    late = time.monotonic() + 10
    while alive(child) and time.monotonic() < late:
        time.sleep(0.05)
    assert not alive(child)
    (tmp_path / "broken").touch()
    with pytest.raises(RuntimeError, match="ended with 3 before it was ready"), serving_bench.server(spec):
        pytest.fail("it is not ready")


def test_bench_results_become_a_table(module, tmp_path):
    """Of two files; unanswered requests and a run without rocmforge are refused."""
    serving_bench, table = module("serving_bench"), module("table")
    with pytest.raises(RuntimeError, match="3 of 4 requests were answered, with 24 of 32 tokens"):
        serving_bench.checked({"completed": 3, "total_output_tokens": 24}, 4, 32)

    def one(time, rate):
        return {"measures": {"ttft_concurrency1_ms": time, "output_tokens_s_concurrency1": rate,
                             "throughput_tokens_s": rate}, "done": True}

    ours, others, document = (tmp_path / name for name in ("a.json", "b.json", "d.md"))
    ours.write_text(json.dumps({"bench": {"rocmforge": one(2.0, 30.0)}, "failed": []}))
    others.write_text(json.dumps({"bench": {"TRITON_ATTN": one(3.0, 10.0), "FLASH_ATTN": {"failed": "why"},
                                             "HALF": {"measures": {"ttft_concurrency1_ms": 1.0}, "failed": "why"}}}))
    document.write_text("<!-- bench -->\n<!-- /bench -->\n")
    table.main(str(ours), str(others), str(document))
    assert document.read_text().splitlines() == [
        "<!-- bench -->", "|  | rocmforge | TRITON_ATTN | HALF |", "|---|---|---|---|",
        "| concurrency 1: median time to first token, ms | 2 | 3 (1.50x) | 1 (0.50x) |",
        "| concurrency 1: generated tokens a second | 30 | 10 (3.00x) |  |",
        "| the same: tokens a second, of prompts and answers | 30 | 10 (3.00x) |  |", "<!-- /bench -->"]
    with pytest.raises(ValueError, match="no complete run of rocmforge"):
        table.main(str(others), str(document))
