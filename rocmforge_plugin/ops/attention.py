# SPDX-License-Identifier: Apache-2.0
"""Paged attention: a plan once a step, then one call per layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from .. import _C, served
from .. import device as _device
from ..problem import Problem, combine_suffix
from . import checks

_OP = "paged_attention"
_INT32 = {"dtype": "int32", "device": "on {planner.device}"}
PLAN: checks.Works = {
    "num_tokens.bounds": "0 to max_num_tokens, {planner.max_num_tokens}",
    "max_query_len.least": "at least 0",
    "seq_lens.dims": "[requests]",
    "seq_lens.bounds": "of 1 to max_num_reqs, {planner.max_num_reqs}, requests",
    "query_start_loc.shape": "of size [requests + 1], as seq_lens is {seq_lens.shape}",
    **{
        f"{name}.{what}": works
        for name in ("query_start_loc", "seq_lens")
        for what, works in (*_INT32.items(), ("contiguous", "contiguous"))
    },
}
_ALIGNED = "contiguous in its last dimension, with address and other strides multiples of 16 bytes"
RUN: checks.Works = {
    "scale.range": "positive and finite",
    "window.plan": "{planner.problem.window}, as the plan has it",
    "max_query_len.plan": "at most {plan.max_query_len}, as the plan has it",
    "query.dtype": "{planner.problem.dtype}, as the plan has it",
    "query.device": "on {planner.device}, as the plan is",
    "query.shape": "[tokens, {planner.problem.num_heads}, {planner.problem.key_dims}], as the plan has it",
    "query.aligned": _ALIGNED,
    "kv_cache.shape": "[blocks, {planner.problem.num_kv_heads}, block_size, {planner.row_elements}], a key's "
    "and its value's elements in a row",
    "kv_cache.block_size": f"of a block size that {served.BLOCK_MULTIPLE} divides",
    "kv_cache.aligned": _ALIGNED,
    "out.shape": "[tokens, num_heads, {planner.problem.value_dims}], as query is {query.shape}",
    "out.aligned": _ALIGNED,
    "seq_lens.plan": "of {plan.num_reqs} requests, as the plan is",
    "block_table.dtype": "int32",
    "block_table.shape": "[requests, blocks], as seq_lens is {seq_lens.shape}",
    "block_table.contiguous": "of contiguous rows",
    "sinks.dtype": "float32",
    "sinks.shape": "[{planner.problem.num_heads}], one for each query head",
    "sinks.contiguous": "contiguous",
}


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """A batch's work, dealt out to workgroups on the device. Valid until its planner makes the next one.

    Attributes:
        planner: whose buffers hold it.
        num_reqs: requests in the batch.
        num_tokens: query tokens in the batch, or an upper bound.
        max_query_len: longest query, or an upper bound.
    """

    planner: AttentionPlanner
    num_reqs: int
    num_tokens: int
    max_query_len: int


class AttentionPlanner:
    """Plans for layers that compute the same, in buffers allocated once.

    The buffers stay where they are and launch sizes depend on nothing but the bounds given here, so attention may be
    captured in a graph and replayed after `plan` has been called for another batch.

    Args:
        problem: what the layers compute.
        device: torch device.
        max_num_reqs: most requests of a batch.
        max_num_tokens: most query tokens of a batch.
        decode_query_len: query tokens of a request in a decode step (1, or more with speculative decoding).

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
    ) -> None:
        op = "AttentionPlanner"
        target = torch.device(device)
        _refuse_problem(op, problem, target)
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
        self._native = _C.AttentionPlanner(
            _device.open_device(target), native_problem(problem), max_num_reqs, max_num_tokens, decode_query_len
        )
        # The workspace holds the parts of items that several workgroups share; a batch writes what it reads.
        self._words = torch.zeros(self._native.plan_words, dtype=torch.int32, device=target)
        self._workspace = torch.empty(self._native.workspace_floats, dtype=torch.float32, device=target)
        self.row_elements = self._native.row_elements
        self.device = self._words.device
        self._index = self._words.get_device()
        self._native.use_buffers(self._words.data_ptr(), self._workspace.data_ptr(), self._index)
        self._plan, self._run = self._native.plan, self._native.run

    def plan(
        self, query_start_loc: torch.Tensor, seq_lens: torch.Tensor, max_query_len: int, num_tokens: int
    ) -> AttentionPlan:
        """Deals out a batch's work, by one small launch that reads the lengths on the device.

        Args:
            query_start_loc: int32 [requests + 1], where each request's query tokens start.
            seq_lens: int32 [requests], keys of each request, this step's included. A request without query tokens, or
                with no keys, is padding.
            max_query_len: longest query of the batch, or an upper bound.
            num_tokens: query tokens of the batch, or an upper bound.
        """
        failed = self._plan(_device.stream_of(self._index), query_start_loc, seq_lens, num_tokens, max_query_len)
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
                    "planner": self,
                },
            )
        return AttentionPlan(self, seq_lens.shape[0], num_tokens, max_query_len)

    def run(
        self,
        plan: AttentionPlan,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        out: torch.Tensor,
        max_query_len: int,
        scale: float,
        window: int,
        sinks: torch.Tensor | None,
    ) -> str | None:
        """Launches attention if the arguments, `paged_attention`'s, are right and what the plan was made for.

        Returns the name of the condition that fails, if one does, having launched nothing.
        """
        return self._run(
            _device.stream_of(self._index),
            plan.num_reqs,
            plan.num_tokens,
            plan.max_query_len,
            query,
            kv_cache,
            block_table,
            seq_lens,
            out,
            sinks,
            max_query_len,
            scale,
            window,
        )

    def plan_and_run(
        self,
        query_start_loc: torch.Tensor,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        out: torch.Tensor,
        max_query_len: int,
        scale: float,
        window: int,
        sinks: torch.Tensor | None,
    ) -> str | None:
        """Both, for one call; or neither, as `run`."""
        return self._native.plan_and_run(
            _device.stream_of(self._index),
            query_start_loc,
            query.shape[0],
            query,
            kv_cache,
            block_table,
            seq_lens,
            out,
            sinks,
            max_query_len,
            scale,
            window,
        )


def native_problem(problem: Problem) -> _C.Problem:
    """A problem as the host module takes it."""
    element = served.ELEMENTS[problem.dtype]
    return _C.Problem(
        element=element,
        key_dims=problem.key_dims,
        value_dims=problem.value_dims,
        kv_heads=problem.num_kv_heads,
        group=problem.group,
        window=problem.window,
        suffix=problem.suffix,
        combine_suffix=combine_suffix(element, problem.value_dims),
    )


def _refuse_problem(who: str, problem: Problem, where: torch.device) -> None:
    """Raises for the first field that there are no kernels for."""
    for refusal in problem.refusals(_device.target_of(where)):
        raise (TypeError if refusal.field == "dtype" else ValueError)(f"{who}: {refusal}")


@lru_cache(maxsize=64)
def _decode_rows(problem: Problem, where: torch.device) -> int:
    """The most packed rows (query tokens * group) of a request that a decode kernel takes."""
    _refuse_problem(f"{_OP}, of query, kv_cache and window", problem, where)
    return _C.decode_rows(_device.open_device(where), native_problem(problem))


@lru_cache(maxsize=64)
def _planner(problem: Problem, where: torch.device, reqs: int, tokens: int, decode_query_len: int) -> AttentionPlanner:
    return AttentionPlanner(problem, where, reqs, tokens, decode_query_len)


def forget_planners() -> None:
    """Lets go of the planners that calls without a plan share, and of their buffers."""
    _planner.cache_clear()
    _decode_rows.cache_clear()


def _planner_for(
    query: torch.Tensor, kv_cache: torch.Tensor, seq_lens: torch.Tensor, max_query_len: int, window: int
) -> AttentionPlanner:
    """One that calls of like shapes share; what only a plan asks of the tensors is left to it."""
    for name, tensor, dims, works in (
        ("query", query, 3, "[tokens, num_heads, head_size]"),
        ("kv_cache", kv_cache, 4, "[blocks, num_kv_heads, block_size, 2 * head_size]"),
        ("seq_lens", seq_lens, 1, "[requests]"),
    ):
        checks.placed(_OP, name, tensor)
        if tensor.dim() != dims:
            checks.fail(_OP, name, checks.shape_of(tensor), works)
    tokens, num_heads, head_size = query.shape
    problem = Problem(str(query.dtype), num_heads, kv_cache.shape[1], head_size, head_size, window)
    decode_rows = _decode_rows(problem, query.device)
    # Queries that are too long for a decode step's kernels want no planner of their own, which has buffers.
    short = 0 < max_query_len * problem.group <= decode_rows
    return _planner(
        problem, query.device, _power_of_two(seq_lens.shape[0]), _power_of_two(tokens), max_query_len if short else 1
    )


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def paged_attention(
    query: torch.Tensor,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    max_query_len: int,
    scale: float,
    out: torch.Tensor | None = None,
    window: int = 0,
    sinks: torch.Tensor | None = None,
    plan: AttentionPlan | None = None,
) -> torch.Tensor:
    """Causal attention of a batch's new tokens over the paged cache, which holds their keys and values already.

    For query token i (of n) of a request with L keys and query head h of KV head g = h // (num_heads / num_kv_heads):
    ``out = softmax(scale * q . k_j) v_j`` over the keys ``max(0, p - window + 1) <= j <= p``, ``p = L - n + i``
    (Vaswani et al. 2017, eq. 1; the running softmax is Milakov and Gimelshein's, 2018). With `sinks`, ``exp(sinks[h])``
    joins the sum of the softmax (as in gpt-oss). Products and sums are fp32, probabilities are rounded to the cache's
    dtype before they meet V, the result is rounded once.

    Args:
        query: [tokens, num_heads, head_size], bfloat16 or float16 (CPU: also float32); the last stride is 1, the others
            and the address are multiples of 16 bytes. Tokens past the last request's are padding.
        kv_cache: [blocks, num_kv_heads, block_size, 2 * head_size] of query's dtype, K then V in the last dimension,
            whose stride is 1; the others are multiples of 16 bytes. block_size is a multiple of 16.
        block_table: int32 [requests, blocks per request]; entries past a request's last page are not read.
        seq_lens: int32 [requests], keys of each request, its new tokens included.
        query_start_loc: int32 [requests + 1], where each request's query tokens start.
        max_query_len: most query tokens of a request, or an upper bound.
        scale: factor of the scores, positive.
        out: like query in shape and dtype; allocated if None. Padding tokens are left as they are.
        window: sliding window, in keys, the query's own included; 0 for none.
        sinks: float32 [num_heads] logits, or None.
        plan: from an `AttentionPlanner` of this geometry for these lengths; None makes one here, which costs a launch.

    Returns:
        `out`.

    Raises:
        TypeError, ValueError: an argument is none of these.
    """
    if out is None:
        checks.placed(_OP, "query", query)
        size = query.shape if plan is None else (*query.shape[:-1], plan.planner.problem.value_dims)
        out = torch.empty(size, dtype=query.dtype, device=query.device)
    if plan is not None:
        planner = plan.planner
        failed = planner.run(plan, query, kv_cache, block_table, seq_lens, out, max_query_len, scale, window, sinks)
    else:
        planner = _planner_for(query, kv_cache, seq_lens, max_query_len, window)
        if query.shape[0] == 0 or seq_lens.shape[0] == 0:
            return out
        failed = planner.plan_and_run(
            query_start_loc, query, kv_cache, block_table, seq_lens, out, max_query_len, scale, window, sinks
        )
    if failed:
        checks.refuse(
            _OP,
            failed,
            PLAN | RUN,
            {
                "query": query,
                "kv_cache": kv_cache,
                "block_table": block_table,
                "seq_lens": seq_lens,
                "out": out,
                "query_start_loc": query_start_loc,
                "max_query_len": max_query_len,
                "scale": scale,
                "window": window,
                "sinks": sinks,
                "plan": plan,
                "planner": planner,
            },
        )
    return out
