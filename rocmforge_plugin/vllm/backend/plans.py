# SPDX-License-Identifier: Apache-2.0
"""The planners of one metadata builder: for every problem it has met, one that holds the batches vLLM is set up for.

A layer finds its plan by its problem's number, a small integer, since hashing a problem in every layer of every step
would cost more than the rest of the way to its plan.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import torch
from vllm import envs

from rocmforge_plugin.ops.planner import AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.head_values import Copies
from rocmforge_plugin.vllm.log import logger

_numbers: dict[Problem, int] = {}
_next_number = itertools.count()


def number_of(problem: Problem) -> int:
    """The same integer for equal problems, in this process."""
    return _numbers.setdefault(problem, next(_next_number))


class Batch(Protocol):
    """What is planned from, of one step; lengths are on the device."""

    query_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    max_query_len: int
    num_actual_tokens: int
    causal: bool | torch.Tensor
    ranges: torch.Tensor | None


class Planned:
    """A batch with the plans of its builder, for metadata to derive from.

    Attributes:
        planners: the builder's.
        plans: the work plan of each problem, by its number.
        causal: whether tokens see no keys after their own, or an int32 tensor [requests] that says so of each request.
        ranges: of keys that see each other, for the problems that have such; see `AttentionPlanner.plan`.
    """

    planners: Planners
    plans: dict[int, AttentionPlan]
    causal: bool | torch.Tensor = True
    ranges: torch.Tensor | None = None

    def first_plan(self: Any, problem: Problem) -> tuple[int, AttentionPlan]:
        """The number and the plan of a layer that does not know its number.

        The builder may have been told of the layer; else it learns of it here, and plans for it in the steps to come.
        """
        number = self.planners.add(problem)
        if number not in self.plans:
            self.plans[number] = self.planners.plan(number, self)
        return number, self.plans[number]

    def plan_again(self: Any) -> None:
        """Plans from the same device buffers, which now hold other lengths; launches only, so it can be captured.

        The tokens are a drafter's, behind all that ranges are of, and a graph would read the ranges of its capture.
        """
        self.ranges = None
        for number in self.plans:
            self.plans[number] = self.planners.plan(number, self)


def capturing(device: torch.device) -> bool:
    """Whether what is launched now becomes part of a graph."""
    return device.type == "cuda" and bool(torch.cuda.is_current_stream_capturing())


class Planners:
    """Makes plans in buffers that stay where they are.

    A graph that was captured over a planner's buffers may be replayed at any time, so no planner is ever given up or
    made anew. A batch beyond the bounds, which vLLM is not known to make, gets a second planner of twice the size; the
    batches that fit the first stay with it, as the graphs captured with them need.

    Attributes:
        has_ranges: whether tokens of the model's images see each other, for layers that nobody announced.
    """

    has_ranges = False

    def __init__(self, device: torch.device, max_num_reqs: int, max_num_tokens: int, decode_query_len: int) -> None:
        self._device = device
        self._bounds = (max_num_reqs, max_num_tokens)
        self._decode_query_len = decode_query_len
        self._by_number: dict[int, list[AttentionPlanner]] = {}  # the smallest first
        self.copies = Copies()  # of parameters, that the layers read beside the plans

    def add(self, problem: Problem) -> int:
        """Knows `problem` from now on; its number.

        Raises RuntimeError where a graph is being captured, to which its buffers would belong.
        """
        number = number_of(problem)
        if number not in self._by_number:
            self._by_number[number] = [self._make(problem, *self._bounds)]
        return number

    def plan(self, number: int, batch: Batch) -> AttentionPlan:
        """The plan of a problem that is known, by one small launch."""
        reqs, tokens = batch.seq_lens.shape[0], batch.num_actual_tokens
        planners = self._by_number[number]
        for planner in planners:
            if reqs <= planner.max_num_reqs and tokens <= planner.max_num_tokens:
                break
        else:
            planner = self._grow(planners, reqs, tokens)
        ranges = batch.ranges if planner.problem.listed else None
        return planner.plan(batch.query_start_loc, batch.seq_lens, batch.max_query_len, tokens, batch.causal, ranges)

    def plan_all(self, batch: Batch) -> dict[int, AttentionPlan]:
        """The plans of all problems that are known, by number."""
        return {number: self.plan(number, batch) for number in self._by_number}

    def _make(self, problem: Problem, max_num_reqs: int, max_num_tokens: int) -> AttentionPlanner:
        if capturing(self._device):
            raise RuntimeError(
                f"rocmforge first meets {problem} with {max_num_reqs} requests and {max_num_tokens} tokens while a "
                "graph is captured, where no plan's memory can be made; run the layer once before the capture "
                "(compilation_config.cudagraph_num_of_warmups=1), or set compilation_config.cudagraph_mode=PIECEWISE"
            )
        return AttentionPlanner(
            problem,
            self._device,
            max_num_reqs,
            max_num_tokens,
            self._decode_query_len,
            batch_invariant=envs.VLLM_BATCH_INVARIANT,
        )

    def _grow(self, planners: list[AttentionPlanner], reqs: int, tokens: int) -> AttentionPlanner:
        largest = planners[-1]
        bounds = tuple(
            most if asked <= most else 2 * asked
            for asked, most in ((reqs, largest.max_num_reqs), (tokens, largest.max_num_tokens))
        )
        grown = self._make(largest.problem, *bounds)
        logger.warning_once(
            "a batch of %d requests and %d tokens is more than %d and %d, which were expected of this "
            "engine; its plans get more memory",
            reqs,
            tokens,
            *self._bounds,
        )
        planners.append(grown)
        return grown
