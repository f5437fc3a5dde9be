# SPDX-License-Identifier: Apache-2.0
"""One engine in one process, for this folder's command.

    python -m benchmarks.serving.worker SPEC.json

SPEC names the task, its settings and the file for the result, which is rewritten as soon as there is more to say. A
task that measures time waits, once its engine runs, until the command says that no other engine is busy.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from . import trace
from .bench import bench as served_bench

BYTES = 256  # tokens of the seeded checkpoints that are text
# On both sides of the edges of pages of 16 and 32, of tiles of 64 and 128, and one chunked or spread over many pages.
LENGTHS = (1, 15, 16, 17, 31, 32, 33, 63, 65, 128, 129, 200, 300, 511)
KINDS = ("glm4", "glm4_moe", "llama")
COUNTERS = ("vllm:num_preemptions", "vllm:prefix_cache_hits", "vllm:spec_decode_num")
HEADS = {"head_dim": 128, "num_attention_heads": 8, "num_key_value_heads": 2}
# GLM-4-9B-0414, as released.
GLM_4_9B = {
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "vocab_size": 151552,
    "max_position_embeddings": 32768,
    "attention_bias": True,
    "tie_word_embeddings": False,
}

Save = Callable[[dict[str, Any]], None]


def write(path: pathlib.Path, value: Any) -> None:
    """Write JSON so that a reader finds the old or the new, never a part."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value))
    part.replace(path)


def tokens(count: int, seed: int, vocab: int = BYTES) -> list[int]:
    """A seeded prompt."""
    draw = random.Random(seed)
    return [draw.randrange(vocab) for _ in range(count)]


def prepare(spec: dict[str, Any], save: Save) -> None:
    """Make the checkpoints in `folder`: one seeded for each of `kinds`, and the configuration of GLM-4-9B."""
    import transformers

    from tools.checkpoints import make

    folder = pathlib.Path(spec["folder"])
    made = {kind: str(make(kind, folder / kind, **HEADS)) for kind in spec["kinds"]}
    large = folder / "glm4_9b"
    config = transformers.Glm4Config(
        **(GLM_4_9B | spec.get("shape", {})),
        architectures=["Glm4ForCausalLM"],
        dtype="bfloat16",
        eos_token_id=[0],
        pad_token_id=0,
    )
    config.save_pretrained(large)
    save({"checkpoints": made | {"glm4_9b": str(large)}})


def make_llm(spec: dict[str, Any]) -> Any:
    """The engine that `spec` describes; counts of launches start at zero before it is made."""
    from vllm import LLM

    if spec["backend"] == "rocmforge":
        import rocmforge_plugin

        rocmforge_plugin.reset_launches()
    return LLM(
        spec["model"],
        attention_backend=spec["backend"],
        skip_tokenizer_init=True,
        seed=0,
        dtype="bfloat16",
        **spec["settings"],
    )


def launches(spec: dict[str, Any]) -> dict[str, int]:
    """Counts of this process."""
    if spec["backend"] != "rocmforge":
        return {}
    import rocmforge_plugin

    return {name: count for name, count in rocmforge_plugin.launches().items() if count}


def generate(llm: Any, prompts: Sequence[list[int]], count: int, logprobs: int | None = 0) -> list[dict[str, Any]]:
    """Greedy continuations of `count` tokens; `logprobs` None for none."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=count, temperature=0.0, ignore_eos=True, logprobs=logprobs, detokenize=False)
    rows = []
    for prompt, result in zip(
        prompts, llm.generate([{"prompt_token_ids": p} for p in prompts], parameters, use_tqdm=False), strict=True
    ):
        made = result.outputs[0]
        row: dict[str, Any] = {"prompt": prompt, "tokens": list(made.token_ids)}
        if logprobs is not None:
            row["logprobs"] = [step[token].logprob for token, step in zip(made.token_ids, made.logprobs, strict=True)]
        rows.append(row)
    return rows


def score(llm: Any, prompts: Sequence[list[int]]) -> list[list[float]]:
    """Log probability of each token but the first of the prompts."""
    from vllm import SamplingParams

    parameters = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
    results = llm.generate([{"prompt_token_ids": p} for p in prompts], parameters, use_tqdm=False)
    return [
        [step[token].logprob for token, step in zip(prompt[1:], result.prompt_logprobs[1:], strict=True)]
        for prompt, result in zip(prompts, results, strict=True)
    ]


def exact_scores(model: str, texts: Sequence[list[int]]) -> list[tuple[list[float], list[float]]]:
    """By Transformers' model in fp32: log probability of each token but the first, and the highest at its place."""
    import torch
    import transformers

    torch.set_float32_matmul_precision("highest")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plain = {"attn_implementation": "eager"}
    if int(transformers.__version__.split(".")[0]) >= 5:  # grouped products of experts are made for bf16
        plain["experts_implementation"] = "eager"
    exact = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, **plain)
    exact = exact.to(device).eval()
    answers = []
    with torch.no_grad():
        for text in texts:
            row = torch.tensor([text], device=device)
            logprobs = exact(row).logits[0, :-1].float().log_softmax(-1)
            answers.append((logprobs.gather(1, row[0, 1:, None])[:, 0].tolist(), logprobs.max(-1).values.tolist()))
    return answers


def workload(name: str) -> tuple[list[list[int]], int]:
    """Prompts and tokens to generate of one of the features."""
    if name == "preemption":  # together more than the small cache holds
        return [tokens(60 + 3 * i, 50 + i) for i in range(12)], 96
    if name == "ngram":  # a text that repeats, so that its own past proposes the next tokens
        return [tokens(9 + i, 70 + i) * 12 for i in range(8)], 48
    return [tokens(n, 10 + i) for i, n in enumerate(LENGTHS)], 32


def text(spec: dict[str, Any], save: Save) -> None:
    """Parity and features: greedy texts, prompt scores, the exact model's opinion of both, counters and launches."""
    prompts, count = workload(spec["feature"])
    llm = make_llm(spec)
    result: dict[str, Any] = {"at_start": launches(spec)}
    save(result)
    if spec["feature"] == "prefix":  # cache what the texts share, then continue it with and without a new end
        shared = tokens(384, 5)
        generate(llm, [shared], 1)
        prompts = [shared, *(shared + tokens(n, 90 + n) for n in (1, 15, 16, 40, 100))] * 2
    result["sequences"] = generate(llm, prompts, count)
    if spec["feature"] in ("parity", "chunked"):
        result["scores"] = score(llm, prompts)
    result["counters"] = {
        m.name.removeprefix("vllm:"): m.value
        for m in llm.get_metrics()
        if m.name.startswith(COUNTERS) and hasattr(m, "value")
    }
    result["launches"] = launches(spec)
    save(result)
    exact = exact_scores(spec["model"], [row["prompt"] + row["tokens"] for row in result["sequences"]])
    for row, (chosen, best) in zip(result["sequences"], exact, strict=True):
        at = len(row.pop("prompt")) - 1
        row["exact"], row["best"] = chosen[at:], best[at:]
    if "scores" in result:
        result["exact_scores"] = [chosen[: len(p) - 1] for p, (chosen, _) in zip(prompts, exact, strict=True)]
    save(result | {"done": True})


def wait_for_turn(spec: dict[str, Any]) -> None:
    """Say that the engine runs, and wait to be told that the GPU is free; ends when the command has ended."""
    at = pathlib.Path(spec["result"])
    parent = os.getppid()
    at.with_suffix(".ready").touch()
    while not at.with_suffix(".go").exists():
        if os.getppid() != parent:
            sys.exit("the command has ended")
        time.sleep(0.02)


def seconds(llm: Any, batch: int, length: int, count: int, seed: int) -> float:
    """Wall time of generating `count` tokens for each of `batch` prompts."""
    prompts = [tokens(length, 1000 * seed + i, spec_vocab(llm)) for i in range(batch)]
    start = time.perf_counter()
    rows = generate(llm, prompts, count, logprobs=None)
    took = time.perf_counter() - start
    assert all(len(row["tokens"]) == count for row in rows)
    return took


def spec_vocab(llm: Any) -> int:
    """Token numbers that the model has."""
    return llm.llm_engine.model_config.get_vocab_size()


def throughput(spec: dict[str, Any], save: Save) -> None:
    """Tokens per second of whole batches, time to the first token of a long prompt, time per token afterwards."""
    llm = make_llm(spec)
    sizes = spec["sizes"]
    seconds(llm, sizes["batches"][-1], sizes["input"], 2, 1)  # Triton tunes, and the allocator grows, before the clock
    seconds(llm, 1, sizes["long"], 2, 2)
    wait_for_turn(spec)
    result: dict[str, Any] = {}

    def median(seed: int, batch: int, length: int, count: int, repeats: int = 3) -> float:
        return statistics.median(seconds(llm, batch, length, count, seed + i) for i in range(repeats))

    seconds(llm, 1, sizes["long"], 2, 3)
    result["ttft_long_prompt_ms"] = 1e3 * median(10, 1, sizes["long"], 1, 5)
    save({"measures": result})
    for batch in sizes["tpot_batches"]:
        whole, first = (median(20, batch, sizes["input"], n) for n in (1 + sizes["output"], 1))
        result[f"tpot_batch{batch}_ms"] = 1e3 * (whole - first) / sizes["output"]
        save({"measures": result})
    for batch in sizes["batches"]:
        took = median(40, batch, sizes["input"], sizes["output"], 2)
        result[f"tokens_s_batch{batch}"] = batch * sizes["output"] / took
        save({"measures": result})
    counted = llm.collective_rpc("rocmforge_launches")[0] if spec["backend"] == "rocmforge" else {}
    save({"measures": result, "launches": {name: count for name, count in counted.items() if count}, "done": True})


def mark_attention() -> None:
    """Put a named range around everything that rocmforge's attention does on the host in a step."""
    import functools

    import torch

    from rocmforge_plugin.vllm.backend import builder, impl
    from rocmforge_plugin.vllm.position import rotary_kv

    def marked(holder: Any, name: str) -> None:
        inner = getattr(holder, name)

        @functools.wraps(inner)
        def call(*arguments: Any, **named: Any) -> Any:
            with torch.profiler.record_function(trace.MARK + name):
                return inner(*arguments, **named)

        setattr(holder, name, call)

    marked(impl.RocmForgeImpl, "forward")
    marked(impl.RocmForgeImpl, "do_kv_cache_update")
    marked(builder.RocmForgeMetadataBuilder, "build")
    marked(rotary_kv, "_write")


def profile(spec: dict[str, Any], save: Save) -> None:
    """Decode steps of a running batch: their time, then their kernels, copies and waits under torch's profiler."""
    import torch
    from vllm import SamplingParams

    import rocmforge_plugin

    mark_attention()
    llm = make_llm(spec)
    engine, sizes = llm.llm_engine, spec["sizes"]
    for i in range(sizes["batch"]):
        engine.add_request(
            str(i),
            {"prompt_token_ids": tokens(sizes["input"], i, spec_vocab(llm))},
            SamplingParams(max_tokens=512, temperature=0.0, ignore_eos=True, detokenize=False),
        )
    started: set[str] = set()
    while len(started) < sizes["batch"]:
        started |= {out.request_id for out in engine.step() if out.outputs[0].token_ids}
    for _ in range(4):
        engine.step()
    wait_for_turn(spec)
    on_gpu = torch.cuda.is_available()
    wait = torch.cuda.synchronize if on_gpu else (lambda: None)
    times = []
    for _ in range(sizes["timed_steps"]):
        wait()
        start = time.perf_counter()
        engine.step()
        wait()
        times.append(1e6 * (time.perf_counter() - start))
    before = rocmforge_plugin.launches()
    activities = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * on_gpu
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        for _ in range(sizes["steps"]):
            engine.step()
        wait()
    after = rocmforge_plugin.launches()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    result = trace.digest(events, sizes["steps"], set(after))
    result["launched_per_step"] = {
        name: (count - before.get(name, 0)) / sizes["steps"]
        for name, count in after.items()
        if count > before.get(name, 0)
    }
    result["step_us"] = statistics.median(times)
    result["layers"] = llm.llm_engine.model_config.hf_config.num_hidden_layers
    save(result | {"done": True})


def bench(spec: dict[str, Any], save: Save) -> None:
    """vLLM's own server and benchmarks, which are processes of their own."""
    served_bench(spec, save, wait_for_turn)


TASKS = {"prepare": prepare, "text": text, "throughput": throughput, "profile": profile, "bench": bench}


def main() -> None:
    """Run the task of the file that the command line names."""
    spec = json.loads(pathlib.Path(sys.argv[1]).read_text())
    TASKS[spec["task"]](spec, lambda value: write(pathlib.Path(spec["result"]), value))
    sys.stdout.flush()
    os._exit(0)  # vLLM's own end takes seconds and may hang, and there is nothing left to save


if __name__ == "__main__":
    main()
