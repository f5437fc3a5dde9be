# SPDX-License-Identifier: Apache-2.0
"""lm-eval's models with per-token log-probabilities kept, and lm-eval's tasks run on them."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from lm_eval import simple_evaluate
from lm_eval.models.openai_completions import LocalCompletionsAPI
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from rocmforge_plugin.evaluate.records import GENERATE, PREFILL, Record

#: Metrics that say of one item whether it was right, in order of preference.
VERDICTS = ("exact_match", "acc_norm", "acc", "pass@1", "f1")
CHUNK = 96
#: What our own tasks are called; they refer to none of lm-eval's, whose 13000 definitions take 6 s to index.
OURS = "rocmforge_"


def progress(label: str, done: int, total: int, started: float) -> None:
    """One line of progress on stderr, rewritten in place on a terminal."""
    end = "\r" if sys.stderr.isatty() and done < total else "\n"
    if sys.stderr.isatty() or done == total or done % (4 * CHUNK) == 0:
        print(
            f"  {label}: {done}/{total} requests, {time.time() - started:.0f} s   ",
            end=end,
            file=sys.stderr,
            flush=True,
        )


def in_order(
    requests: Sequence[Any], seed: int | None, work: Callable[[list[int]], list[Any]], label: str
) -> list[Any]:
    """Run `work` on chunks of request indices, in a seeded order (None: as they come); results in the given order."""
    order = list(range(len(requests)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    results: list[Any] = [None] * len(order)
    started = time.time()
    for begin in range(0, len(order), CHUNK):
        chunk = order[begin : begin + CHUNK]
        for place, result in zip(chunk, work(chunk), strict=True):
            results[place] = result
        progress(label, begin + len(chunk), len(order), started)
    return results


class Scored:
    """Per-token findings by the tokens of a request."""

    def __init__(self) -> None:
        self.prompts: dict[tuple[int, ...], tuple[int, list[float], list[bool]]] = {}
        self.outputs: dict[tuple[int, ...], list[int]] = {}

    def prompt(
        self, tokens: Sequence[int], start: int, logprobs: list[float], greedy: list[bool]
    ) -> tuple[float, bool]:
        """Keep what was found of tokens[start:]; returns what lm-eval wants of it."""
        self.prompts[tuple(tokens)] = (start, logprobs, greedy)
        return sum(logprobs), all(greedy)


def vllm_model(arguments: dict[str, Any], seed: int | None, label: str) -> Any:
    """lm-eval's vLLM model, keeping per-token findings in `.scored`.

    arguments: of lm-eval's `--model vllm`. seed: order of the requests in a batch.
    """
    from lm_eval.models.vllm_causallms import VLLM

    class RecordingVLLM(VLLM):
        """lm-eval's vLLM model."""

        def __init__(self, **kwargs: Any) -> None:
            self.scored = Scored()
            self.order = seed
            self.label = label
            super().__init__(**kwargs)

        @property
        def longest(self) -> int:
            """Most tokens that lm-eval scores in one request: one is kept for the token vLLM must generate."""
            return int(self.max_length) - 1

        def _model_generate(
            self, requests: list[list[int]], generate: bool = False, sampling_params: Any = None
        ) -> Any:
            listed = isinstance(sampling_params, list)

            def work(chunk: list[int]) -> Any:
                params = [sampling_params[i] for i in chunk] if listed else sampling_params
                return super(RecordingVLLM, self)._model_generate([requests[i] for i in chunk], generate, params)

            what = "generating" if generate else "scoring"
            outputs = in_order(requests, self.order, work, f"{self.label} {what}")
            if generate:
                for tokens, output in zip(requests, outputs, strict=True):
                    self.scored.outputs[tuple(tokens)] = list(output.outputs[0].token_ids)
            return outputs

        def _parse_logprobs(self, tokens: list[int], outputs: Any, ctxlen: int) -> tuple[float, bool]:
            logprobs, greedy = [], []
            for token, found in zip(tokens[ctxlen:], outputs.prompt_logprobs[ctxlen:], strict=True):
                logprobs.append(float(found[token].logprob))
                greedy.append(found[token].rank == 1)
            return self.scored.prompt(tokens, ctxlen, logprobs, greedy)

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

    # One batch for lm-eval: vLLM schedules, and `in_order` cuts the chunks that progress is reported for.
    return RecordingVLLM(batch_size=1 << 20, **arguments)


class RecordingCompletions(LocalCompletionsAPI):
    """lm-eval's local-completions client, keeping per-token findings in `.scored`."""

    def __init__(self, **kwargs: Any) -> None:
        self.scored = Scored()
        super().__init__(**kwargs)

    @property
    def longest(self) -> int:
        """As for the engine in this process: this client's `max_length` has the one token taken off already."""
        return int(self.max_length)

    def parse_logprobs(
        self, outputs: Any, tokens: Any = None, ctxlens: Any = None, **_: Any
    ) -> list[tuple[float, bool]]:
        """As lm-eval's, with the echoed prompt's tokens kept one by one."""
        found = []
        listed = outputs if isinstance(outputs, list) else [outputs]
        choices = [choice for out in listed for choice in sorted(out["choices"], key=itemgetter("index"))]
        for choice, ids, start in zip(choices, tokens, ctxlens, strict=True):
            logprobs = choice["logprobs"]["token_logprobs"][start : len(ids)]
            best = [max(top.values()) for top in choice["logprobs"]["top_logprobs"][start : len(ids)]]
            greedy = [mine >= top for mine, top in zip(logprobs, best, strict=True)]
            found.append(self.scored.prompt(ids, start, logprobs, greedy))
        return found


def run_tasks(
    model: Any,
    tasks: list[str],
    folder: Path | None,
    limit: int | None,
    about: dict[str, Any],
    settings: dict[str, Any],
) -> tuple[list[Record], dict[str, dict[str, float]]]:
    """Run lm-eval tasks; returns one record per request and lm-eval's own scores.

    folder: task definitions of our own. about: metadata handed to the tasks (the size of the evaluation).
    settings: further arguments of `simple_evaluate` (num_fewshot, apply_chat_template, gen_kwargs).
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = TaskManager(
        include_path=str(folder) if folder else None,
        include_defaults=not all(task.startswith(OURS) for task in tasks),
        metadata=about,
    )
    found = simple_evaluate(
        model=model, tasks=tasks, task_manager=manager, limit=limit, log_samples=True, bootstrap_iters=0, **settings
    )
    records: list[Record] = []
    for task, samples in found["samples"].items():
        for sample in samples:
            records += records_of(model, task, sample)
    scores: dict[str, dict[str, float]] = {}
    for task, metrics in found["results"].items():
        plain = {name.split(",")[0]: value for name, value in metrics.items() if "stderr" not in name}
        scores[task] = {name: float(value) for name, value in plain.items() if isinstance(value, (int, float))}
    return records, scores


def records_of(model: Any, task: str, sample: dict[str, Any]) -> list[Record]:
    """The records of one lm-eval sample: one per request (several for multiple choice)."""
    doc = sample["doc"] if isinstance(sample["doc"], dict) else {}
    item = f"{doc['length']}/{sample['doc_id']}" if "length" in doc else str(sample["doc_id"])
    right = next((float(sample[name]) for name in VERDICTS if isinstance(sample.get(name), (int, float))), None)
    if right not in (0.0, 1.0):
        right = None
    made = []
    several = len(sample["arguments"]) > 1
    for place, (arguments, response) in enumerate(zip(sample["arguments"], sample["resps"], strict=True)):
        name = f"{item}#{place}" if several else item
        verdict = right if place == 0 else None
        if len(arguments) == 2 and isinstance(arguments[1], dict):
            prompt = model.tok_encode(arguments[0])
            # A server sends text; its tokens are those of the text.
            tokens = model.scored.outputs.setdefault(tuple(prompt), model.tok_encode(response[0]))
            made.append(Record(GENERATE, task, name, len(prompt), text=response[0], correct=verdict, tokens=tokens))
            continue
        record = Record(PREFILL, task, name, 0, correct=verdict)
        if len(arguments) == 2:
            head, tail = model._encode_pair(*arguments)
            windows, text = [(head, tail)], arguments[1]
        else:
            text = arguments[0]
            split = get_rolling_token_windows(
                token_list=model.tok_encode(text),
                prefix_token=model.prefix_token_id,
                max_seq_len=model.longest - 1,
                context_len=1,
            )
            windows = [make_disjoint_window(pair) for pair in split]
        for head, tail in windows:
            tokens = (head + tail)[-model.longest :]
            start, logprobs, greedy = model.scored.prompts[tuple(tokens)]
            record.length = max(record.length, len(tokens))
            record.tokens += tokens[start:]
            record.logprobs += logprobs
            record.greedy += greedy
        record.size = len(text.encode())
        made.append(record)
    return made
