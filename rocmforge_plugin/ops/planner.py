# SPDX-License-Identifier: Apache-2.0
"""Plans of attention: made once a step, for all layers that compute the same, by whichever op."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from .. import _C, served
from .. import device as _device
from ..problem import Problem
from . import checks

_INT32 = {"dtype": "int32", "device": "on {planner.device}"}
PLAN: checks.Works = {
    "num_tokens.bounds": "0 to max_num_tokens, {planner.max_num_tokens}",
    "max_query_len.least": "at least 0",
    "causal.type": "True, False or an int32 tensor [requests]",
    "causal.requests": "int32 [requests] on {planner.device} and contiguous, as seq_lens is {seq_lens.shape}",
    "ranges.mask": "None for a problem whose mask is '{planner.problem.mask}'",
    "ranges.shape": "int32 [requests, ranges, 2] on {planner.device}, as seq_lens is {seq_lens.shape}",
    "ranges.contiguous": "contiguous in its last two dimensions",
    "seq_lens.dims": "[requests]",
    "seq_lens.bounds": "of 1 to max_num_reqs, {planner.max_num_reqs}, requests",
    "query_start_loc.shape": "of size [requests + 1], as seq_lens is {seq_lens.shape}",
    **{
        f"{name}.{what}": works
        for name in ("query_start_loc", "seq_lens")
        for what, works in (*_INT32.items(), ("contiguous", "contiguous"))
    },
}
ALIGNED = "contiguous in its last dimension, with address and other strides multiples of 16 bytes"
# What all ops of attention demand, whatever holds the keys.
COMMON: checks.Works = {
    "plan.op": "for {op}",
    "scale.range": "positive and finite",
    "causal.plan": "{plan.causal}, as the plan has it",
    "max_query_len.plan": "at most {plan.max_query_len}, as the plan has it",
    "query.dtype": "{planner.problem.dtype}, as the plan has it",
    "query.device": "on {planner.device}, as the plan is",
    "query.shape": "[tokens, {planner.problem.num_heads}, {planner.problem.key_dims}], as the plan has it",
    "query.aligned": ALIGNED,
    "out.shape": "[tokens, num_heads, {planner.problem.value_dims}], as query is {query.shape}",
    "out.aligned": ALIGNED,
    "lse.dtype": "float32",
    "lse.shape": "[num_heads, tokens], as query is {query.shape}",
    "seq_lens.plan": "of {plan.num_reqs} requests, as the plan is",
}
# Where keys lie on pages, and a block table says on which.
PAGES: checks.Works = {
    "kv_cache.block_size": f"of a block size that {served.BLOCK_MULTIPLE} divides",
    "kv_cache.aligned": ALIGNED,
    "block_table.dtype": "int32",
    "block_table.shape": "[requests, blocks], as seq_lens is {seq_lens.shape}",
    "block_table.contiguous": "of contiguous rows",
}


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """A batch's work, dealt out to workgroups on the device. Valid until its planner makes the next one.

    Attributes:
        planner: whose buffers hold it.
        num_reqs: requests in the batch.
        num_tokens: query tokens in the batch, or an upper bound.
        max_query_len: longest query, or an upper bound.
        causal: whether a token sees no keys after its own, or an int32 tensor that says so of each request.
    """

    planner: AttentionPlanner
    num_reqs: int
    num_tokens: int
    max_query_len: int
    causal: bool | torch.Tensor = True


class AttentionPlanner:
    """Plans for layers that compute the same, in buffers allocated once.

    The buffers stay where they are and launch sizes depend on nothing but the bounds given here, so attention may be
    captured in a graph and replayed after `plan` has been called for another batch, where `causal` is a bool of the
    same one.

    Args:
        problem: what the layers compute.
        device: torch device.
        max_num_reqs: most requests of a batch.
        max_num_tokens: most query tokens of a batch.
        decode_query_len: query tokens of a request in a decode step (1, or more with speculative decoding).
        beside: a planner of the same problem and device whose attention runs on the same stream: the plans of both are
            valid at a time, and what attention leaves in memory for its own next launch has one place.
        batch_invariant: whether a request's results must be the same to the bit whatever else its batch holds. Then a
            request of a decode step is cut after its own length alone, into at most 192 / num_kv_heads parts, with
            memory for the results of so many of each request; prompts' rows are not cut.

    Raises:
        TypeError, ValueError: an argument is none of these, or there are no kernels for the problem.
    """

    def __init__(
        self,
        problem: Problem,
        device: torch.device | str,
        max_num_reqs: int,
        max_num_tokens: int,
        decode_query_len: int = 1,
        beside: AttentionPlanner | None = None,
        batch_invariant: bool = False,
    ) -> None:
        op = "AttentionPlanner"
        target = torch.device(device)
        refuse_problem(op, problem, target)
        for name, value in (
            ("max_num_reqs", max_num_reqs),
            ("max_num_tokens", max_num_tokens),
            ("decode_query_len", decode_query_len),
        ):
            if value < 1:
                checks.fail(op, name, value, "at least 1")
        self.problem = problem
        self.max_num_reqs = max_num_reqs
        self.max_num_tokens = max_num_tokens
        self.native = _C.AttentionPlanner(
            _device.open_device(target),
            native_problem(problem),
            max_num_reqs,
            max_num_tokens,
            decode_query_len,
            batch_invariant,
        )
        # The workspace holds the parts of items that several workgroups share; a batch writes what it reads.
        self._words = torch.zeros(self.native.plan_words, dtype=torch.int32, device=target)
        self._workspace = (
            torch.empty(self.native.workspace_floats, dtype=torch.float32, device=target)
            if beside is None
            else self._workspace_of(beside)
        )
        # What each token sees, where the plan says so.
        self._spans = torch.zeros(max_num_tokens if problem.listed else 0, 2, dtype=torch.int32, device=target)
        self.row_elements = self.native.row_elements
        self.device = self._words.device
        self._index = self._words.get_device()
        self.native.use_buffers(self._words.data_ptr(), self._workspace.data_ptr(), self._index, self._spans.data_ptr())

    def plan(
        self,
        query_start_loc: torch.Tensor,
        seq_lens: torch.Tensor,
        max_query_len: int,
        num_tokens: int,
        causal: bool | torch.Tensor = True,
        ranges: torch.Tensor | None = None,
    ) -> AttentionPlan:
        """Deals out a batch's work, by one small launch that reads the lengths on the device.

        Args:
            query_start_loc: int32 [requests + 1], where each request's query tokens start.
            seq_lens: int32 [requests], keys of each request, this step's included. A request without query tokens is
                padding, and where `causal` one without keys is: then its own are not among them.
            max_query_len: longest query of the batch, or an upper bound.
            num_tokens: query tokens of the batch, or an upper bound.
            causal: whether a token sees no keys after its own; else it sees all keys of its request, or those in a
                window that reaches as far to either side. An int32 tensor [requests] says so of each request.
            ranges: int32 [requests, ranges, 2], for a problem with such a mask: the first and the last position of the
                ranges of each request, of which there is none in 0, 0. They must not overlap.
        """
        failed = self.native.plan(self.stream(), query_start_loc, seq_lens, num_tokens, max_query_len, causal, ranges)
        if failed:
            checks.refuse(
                "AttentionPlanner.plan",
                failed,
                PLAN,
                {
                    "query_start_loc": query_start_loc,
                    "seq_lens": seq_lens,
                    "num_tokens": num_tokens,
                    "max_query_len": max_query_len,
                    "causal": causal,
                    "ranges": ranges,
                    "planner": self,
                },
            )
        return AttentionPlan(self, seq_lens.shape[0], num_tokens, max_query_len, causal)

    def _workspace_of(self, beside: AttentionPlanner) -> torch.Tensor:
        """Another planner's, if it will do."""
        alike = beside.problem == self.problem and beside.device == self._words.device
        if not alike or beside._workspace.numel() < self.native.workspace_floats:
            works = f"a planner of {self.problem} on {self._words.device}, with this one's decode_query_len"
            checks.fail("AttentionPlanner", "beside", f"of {beside.problem} on {beside.device}", works)
        return beside._workspace

    def stream(self) -> int:
        """Torch's current stream on the planner's device, as the host module takes it."""
        return _device.stream_of(self._index)


def native_problem(problem: Problem) -> _C.Problem:
    """A problem as the host module takes it."""
    return _C.Problem(
        op=problem.op,
        element=served.ELEMENTS[problem.dtype],
        key_dims=problem.key_dims,
        value_dims=problem.value_dims,
        kv_heads=problem.num_kv_heads,
        group=problem.group,
        window=problem.window,
        listed=problem.listed,
        clamped=problem.mask == "clamped_ranges",
        capped=problem.score == "capped",
        sloped=problem.score in ("biased", "rooted"),
        partial_dims=problem.kernels[2],
        suffix=problem.suffix,
        combine_suffix=problem.combine_suffix,
    )


def refuse_problem(who: str, problem: Problem, where: torch.device) -> None:
    """Raises for the first field that there are no kernels for."""
    for refusal in problem.refusals(_device.target_of(where)):
        raise (TypeError if refusal.field == "dtype" else ValueError)(f"{who}: {refusal}")


@lru_cache(maxsize=64)
def _decode_rows(op: str, problem: Problem, where: torch.device) -> int:
    """The most packed rows (query tokens * group) of a request that a decode kernel takes."""
    refuse_problem(op, problem, where)
    return _C.decode_rows(_device.open_device(where), native_problem(problem))


@lru_cache(maxsize=64)
def _planner(problem: Problem, where: torch.device, reqs: int, tokens: int, decode_query_len: int) -> AttentionPlanner:
    return AttentionPlanner(problem, where, reqs, tokens, decode_query_len)


def forget_planners() -> None:
    """Lets go of the planners that calls without a plan share, and of their buffers."""
    _planner.cache_clear()
    _decode_rows.cache_clear()


def shared_planner(
    op: str, problem: Problem, where: torch.device, reqs: int, tokens: int, max_query_len: int
) -> AttentionPlanner:
    """One that an op's calls without a plan share, if their shapes are alike.

    Raises:
        TypeError, ValueError: there are no kernels for the problem; `op` begins the message.
    """
    decode_rows = _decode_rows(op, problem, where)
    # Queries that are too long for a decode step's kernels want no planner of their own, which has buffers.
    short = 0 < max_query_len * problem.group <= decode_rows
    return _planner(problem, where, _power_of_two(reqs), _power_of_two(tokens), max_query_len if short else 1)


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
