# SPDX-License-Identifier: Apache-2.0
"""One engine with one attention backend in one dtype, run in this process so that its launches can be counted."""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rocmforge_plugin.evaluate.records import DECODE, Record, Run

#: Settings of the engine that are the same for every backend unless the user says otherwise.
#: Small prefill chunks, so that prompts of 2k tokens also run as chunk on context.
ENGINE: dict[str, Any] = {
    "enforce_eager": True,
    "enable_prefix_caching": False,
    "max_num_batched_tokens": 768,
    "max_num_seqs": 32,
    "seed": 0,
}
#: Of tasks without continuations of their own: at most so many items are forced, and so many scored tokens of one.
FORCED_ITEMS, FORCED_TAIL = 256, 64


@dataclass
class Plan:
    """What to run, the same for every backend.

    tasks: lm-eval task names. folder: their definitions, where they are not lm-eval's own. about: the tasks' metadata.
    forced: items {name, length, prompt, continuation} to decode; None forces what the reference generated.
    engine: arguments of vLLM's LLM beyond ENGINE. settings: further arguments of lm-eval's `simple_evaluate`.
    """

    model: str
    tasks: list[str]
    folder: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    forced: list[dict[str, Any]] | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def prepare_environment() -> None:
    """Settings that vLLM reads when it is imported. The engine stays in this process: its launches are then ours."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # vLLM's CPU platform would otherwise reserve a share of the whole machine for the KV cache.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


class Session:
    """An engine ready to be asked; use it for one backend, then end the process."""

    def __init__(self, plan: Plan, backend: str, dtype: str, label: str, order: int | None = None) -> None:
        """backend: vLLM's name for it, or auto for vLLM's own. order: seed of the order of the requests (None: as they
        come).
        """
        prepare_environment()
        from rocmforge_plugin.evaluate import harness
        from rocmforge_plugin.evaluate.host import host

        started = time.time()
        self.engine = {**ENGINE, **plan.engine}
        if backend.upper() != "ROCMFORGE":
            own = host(plan.model, self.engine)
            self.engine = own.corrected(self.engine)
            backend = own.backend if backend == "auto" else backend
        self.plan, self.backend, self.dtype, self.label = plan, backend, dtype, label
        arguments = dict(self.engine)
        config = dict(arguments.pop("attention_config", None) or {})
        arguments |= {
            "pretrained": plan.model,
            "dtype": dtype,
            "attention_config": {**config, "backend": backend.upper()},
            "worker_extension_cls": "rocmforge_plugin.vllm.report.LaunchCounts",
        }
        self.v2_runner = self._uses_v2_runner()
        try:
            self.model = harness.vllm_model(arguments | self._forcing(), order, label)
        except ValueError as error:
            # vLLM falls back to its older runner for some models, and says so only here.
            if not self.v2_runner or "Model Runner V2" not in str(error):
                raise
            self.v2_runner = False
            self.model = harness.vllm_model(arguments | self._forcing(), order, label)
        self.loading = time.time() - started
        self.launches: dict[str, dict[str, int]] = {}
        self._counted = self._count()

    def _forcing(self) -> dict[str, Any]:
        """The engine arguments that let a request decode given tokens."""
        if self.v2_runner:
            return {"enable_trace_replay": True}
        return {"logits_processors": ["rocmforge_plugin.evaluate.forced:ForcedTokens"]}

    @staticmethod
    def _uses_v2_runner() -> bool:
        """vLLM's newer model runner forces tokens by itself and refuses processors of the older kind."""
        from vllm import envs
        from vllm.platforms import current_platform
        from vllm.triton_utils import HAS_TRITON

        if envs.VLLM_USE_V2_MODEL_RUNNER is not None:
            return bool(envs.VLLM_USE_V2_MODEL_RUNNER)
        return bool(HAS_TRITON) and not current_platform.is_cpu()

    def _count(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for counts in self.model.model.collective_rpc("rocmforge_launches"):
            total.update(counts)
        return total

    def _phase(self, name: str) -> None:
        now = self._count()
        self.launches[name] = {
            kernel: now[kernel] - self._counted[kernel] for kernel in sorted(now) if now[kernel] > self._counted[kernel]
        }
        self._counted = now

    def selected(self) -> str:
        """The class of the attention layers' implementation, as the engine built them."""
        return ", ".join(sorted(set(self.model.model.apply_model(_layers))))

    def emulated(self) -> str | None:
        """What is to be said of rocmforge's launches where they are an emulated GPU's."""
        said: str | None = self.model.model.collective_rpc("rocmforge_emulated")[0]
        return said

    def tasks(self) -> tuple[list[Record], dict[str, dict[str, float]]]:
        """Run the plan's lm-eval tasks."""
        from rocmforge_plugin.evaluate import harness

        plan = self.plan
        folder = Path(plan.folder) if plan.folder else None
        found = harness.run_tasks(self.model, plan.tasks, folder, plan.limit, plan.about, plan.settings)
        self._phase("tasks")
        return found

    def forced(self, wanted: list[dict[str, Any]]) -> list[Record]:
        """Decode every item's continuation token by token; one record per item.

        Raises RuntimeError when the engine produced other tokens than the forced ones.
        """
        from vllm.inputs import TokensPrompt

        from rocmforge_plugin.evaluate import forced, harness

        encode = self.model.tok_encode
        pairs = [
            (item.get("prompt_ids") or encode(item["prompt"]), item.get("ids") or encode(item["continuation"]))
            for item in wanted
        ]
        engine = self.model.model

        def work(chunk: list[int]) -> list[Any]:
            prompts = [TokensPrompt(prompt_token_ids=pairs[i][0]) for i in chunk]
            params = [forced.request(pairs[i][1], self.v2_runner) for i in chunk]
            outputs: list[Any] = engine.generate(prompts, params, use_tqdm=False)
            return outputs

        outputs = harness.in_order(pairs, self.model.order, work, f"{self.label} decoding")
        self._phase("decode")
        records, counts = [], Counter[str]()
        for item, (prompt, ids), output in zip(wanted, pairs, outputs, strict=True):
            made = output.outputs[0]
            if list(made.token_ids) != ids:
                raise RuntimeError(
                    f"{self.backend}: forced {ids[:8]}..., but the engine produced {made.token_ids[:8]}..."
                )
            counts[item["name"]] += 1
            name = f"{item['length']}/{counts[item['name']]}"
            found = [step[token] for step, token in zip(made.logprobs, ids, strict=True)]
            records.append(
                Record(
                    DECODE,
                    f"{item['name']} (forced)",
                    name,
                    len(prompt),
                    tokens=ids,
                    logprobs=[float(one.logprob) for one in found],
                    greedy=[one.rank == 1 for one in found],
                )
            )
        return records

    def run(self, wanted: list[dict[str, Any]] | None) -> Run:
        """Everything of the plan. wanted: what to force; None forces this run's own generations."""
        started = time.time()
        records, scores = self.tasks()
        if wanted is None:
            wanted = own_continuations(self.model.scored)
        records += self.forced(wanted)
        return Run(
            self.backend,
            self.dtype,
            records,
            self.launches,
            scores,
            {**self.about(), "seconds": round(time.time() - started, 1), "forced": wanted},
        )

    def about(self) -> dict[str, Any]:
        """Versions, device and arguments, for the report."""
        import torch
        import vllm

        device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or "cpu"
        return {
            "model": self.plan.model,
            "backend": self.backend,
            "dtype": self.dtype,
            "layers": self.selected(),
            "vllm": vllm.__version__,
            "torch": torch.__version__,
            "device": device,
            "emulation": self.emulated(),
            "threads": torch.get_num_threads(),
            "engine": self.engine,
            "loading": round(self.loading, 1),
        }


def _layers(model: Any) -> str:
    """Names of the attention implementations in a model."""
    found = {f"{type(m.impl).__module__}.{type(m.impl).__qualname__}" for m in model.modules() if hasattr(m, "impl")}
    return ", ".join(sorted(found))


def own_continuations(scored: Any) -> list[dict[str, Any]]:
    """What to force where a task has no continuation of its own, from a run's `harness.Scored`.

    The tokens that the run generated; where it only scored, the last part of what it scored, so that decoding is
    covered with any task.
    """
    found = [
        {"name": "generated", "length": len(prompt), "prompt_ids": list(prompt), "ids": ids}
        for prompt, ids in scored.outputs.items()
        if len(ids) > 1
    ]
    for tokens in () if found else scored.prompts:
        kept = min(FORCED_TAIL, len(tokens) // 2)
        if kept > 1:
            found.append(
                {
                    "name": "scored",
                    "length": len(tokens) - kept,
                    "prompt_ids": list(tokens[:-kept]),
                    "ids": list(tokens[-kept:]),
                }
            )
    return found[:FORCED_ITEMS]


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as plain data."""
    return asdict(plan)
