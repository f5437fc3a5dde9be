# SPDX-License-Identifier: Apache-2.0
"""Paged attention: a plan once a step, then one call per layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from .. import _C, device, served
from ..problem import Problem
from . import checks

_OP = "paged_attention"


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

    def __init__(self, problem: Problem, device: torch.device | str, max_num_reqs: int, max_num_tokens: int,
                 decode_query_len: int = 1) -> None:
        op = "AttentionPlanner"
        target = torch.device(device)
        for refusal in problem.refusals(_device.target_of(target)):
            raise (TypeError if refusal.field == "dtype" else ValueError)(f"{op}: {refusal}")
        for name, value in (("max_num_reqs", max_num_reqs), ("max_num_tokens", max_num_tokens),
                            ("decode_query_len", decode_query_len)):
            if value < 1:
                checks.fail(op, name, value, "at least 1")
        self.problem = problem
        self.max_num_reqs = max_num_reqs
        self.max_num_tokens = max_num_tokens
        self._native = _C.AttentionPlanner(
            _device.open_device(target), list(served.ELEMENTS).index(problem.dtype), problem.key_dims,
            problem.num_kv_heads, problem.group, problem.window, problem.core, max_num_reqs, max_num_tokens,
            decode_query_len)
        # The workspace holds the parts of items that several workgroups share; a batch writes what it reads.
        self._words = torch.zeros(self._native.plan_words, dtype=torch.int32, device=target)
        self._workspace = torch.empty(self._native.workspace_floats, dtype=torch.float32, device=target)
        self.device = self._words.device
        self._index = self._words.get_device()
        self._native.use_buffers(self._words.data_ptr(), self._workspace.data_ptr(), self._index)
        self._plan, self._run = self._native.plan, self._native.run

    def plan(self, query_start_loc: torch.Tensor, seq_lens: torch.Tensor, max_query_len: int,
             num_tokens: int) -> AttentionPlan:
        """Deals out a batch's work, by one small launch that reads the lengths on the device.

        Args:
            query_start_loc: int32 [requests + 1], where each request's query tokens start.
            seq_lens: int32 [requests], keys of each request, this step's included. A request without query tokens, or
                with no keys, is padding.
            max_query_len: longest query of the batch, or an upper bound.
            num_tokens: query tokens of the batch, or an upper bound.
        """
        if not self._plan(device.stream_of(self._index), query_start_loc, seq_lens, num_tokens, max_query_len):
            self._check_batch(query_start_loc, seq_lens, num_tokens)
            raise ValueError("AttentionPlanner.plan: query_start_loc or seq_lens has no memory")
        return AttentionPlan(self, seq_lens.shape[0], num_tokens, max_query_len)

    def _check_batch(self, query_start_loc: torch.Tensor, seq_lens: torch.Tensor, num_tokens: int) -> None:
        """Raises if an argument is not what `plan` takes."""
        op = "AttentionPlanner.plan"
        checks.plain(op, query_start_loc=query_start_loc, seq_lens=seq_lens)
        num_reqs = seq_lens.numel()
        for name, tensor, size in (("query_start_loc", query_start_loc, num_reqs + 1),
                                   ("seq_lens", seq_lens, num_reqs)):
            _check_indices(op, name, tensor, self.device)
            if tensor.dim() != 1 or tensor.shape[0] != size or (size > 1 and tensor.stride(0) != 1):
                checks.fail(op, name, checks.shape_of(tensor), f"contiguous and of size [{size}]")
        if not 0 < num_reqs <= self.max_num_reqs:
            checks.fail(op, "seq_lens", f"of {num_reqs} requests", f"of 1 to max_num_reqs, {self.max_num_reqs}")
        if not 0 <= num_tokens <= self.max_num_tokens:
            checks.fail(op, "num_tokens", num_tokens, f"at most max_num_tokens, {self.max_num_tokens}")

    def run(self, plan: AttentionPlan, query: torch.Tensor, kv_cache: torch.Tensor, block_table: torch.Tensor,
            seq_lens: torch.Tensor, out: torch.Tensor, max_query_len: int, scale: float, window: int,
            sinks: torch.Tensor | None) -> bool:
        """Launches attention if the arguments, `paged_attention`'s, are right and what the plan was made for.

        Returns False otherwise, having launched nothing: the host module asks what `_check` and `_check_plan`, which
        have the messages, do.
        """
        return self._run(device.stream_of(self._index), plan.num_reqs, plan.max_query_len, query, kv_cache, block_table,
                         seq_lens, out, sinks, max_query_len, scale, window)


_device = device  # `device` is also the name of a public argument


def _check_indices(op: str, name: str, tensor: torch.Tensor, where: torch.device) -> None:
    if tensor.dtype != torch.int32:
        raise TypeError(f"{op}: {name} is {tensor.dtype}; it must be int32")
    if tensor.device != where:
        checks.fail(op, name, f"on {tensor.device}", f"on {where}")


@lru_cache(maxsize=64)
def _planner(problem: Problem, where: torch.device, reqs: int, tokens: int, decode_query_len: int) -> AttentionPlanner:
    return AttentionPlanner(problem, where, reqs, tokens, decode_query_len)


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def _check(query: torch.Tensor, kv_cache: torch.Tensor, block_table: torch.Tensor, seq_lens: torch.Tensor,
           out: torch.Tensor, scale: float, sinks: torch.Tensor | None) -> None:
    """Raises if a tensor is not what `paged_attention` takes."""
    checks.plain(_OP, query=query, kv_cache=kv_cache, block_table=block_table, seq_lens=seq_lens, out=out,
                 **({} if sinks is None else {"sinks": sinks}))
    kind = checks.element(_OP, "query", query)
    if query.dim() != 3:
        checks.fail(_OP, "query", checks.shape_of(query), "[tokens, num_heads, head_size]")
    _, num_heads, head_size = query.shape
    if kv_cache.dim() != 4 or kv_cache.shape[3] != 2 * head_size:
        checks.fail(_OP, "kv_cache", checks.shape_of(kv_cache), f"[blocks, num_kv_heads, block_size, {2 * head_size}]")
    if out.shape != query.shape:
        checks.fail(_OP, "out", checks.shape_of(out), f"of query's shape, {list(query.shape)}")
    for name, tensor in (("kv_cache", kv_cache), ("out", out)):
        checks.same_dtype(_OP, name, tensor, "query", query.dtype)
        checks.same_device(_OP, name, tensor, "query", query)
    per_16_bytes = 8 if kind != 2 else 4
    for name, tensor in (("query", query), ("out", out), ("kv_cache", kv_cache)):
        *outer, inner = tensor.stride()
        if inner != 1 or tensor.data_ptr() % 16 or any(stride % per_16_bytes for stride in outer):
            checks.fail(_OP, name, f"{checks.shape_of(tensor)} at address {tensor.data_ptr():#x}",
                        f"contiguous in its last dimension, with address and other strides multiples of 16 bytes "
                        f"({per_16_bytes} elements)")
    if kv_cache.shape[2] % served.BLOCK_MULTIPLE or not kv_cache.shape[2]:
        checks.fail(_OP, "kv_cache", f"of block size {kv_cache.shape[2]}",
                    f"of a block size that {served.BLOCK_MULTIPLE} divides")
    num_reqs = seq_lens.shape[0]
    _check_indices(_OP, "block_table", block_table, query.device)
    if block_table.dim() != 2 or block_table.shape[0] < num_reqs or block_table.stride(1) != 1:
        checks.fail(_OP, "block_table", checks.shape_of(block_table), f"[{num_reqs}, blocks], contiguous rows")
    if not (scale > 0 and math.isfinite(scale)):
        checks.fail(_OP, "scale", scale, "positive and finite")
    if sinks is not None and (sinks.dtype != torch.float32 or sinks.shape != (num_heads,) or not sinks.is_contiguous()
                              or sinks.device != query.device):
        checks.fail(_OP, "sinks", f"{sinks.dtype} {checks.shape_of(sinks)} on {sinks.device}",
                    f"float32 [{num_heads}], contiguous, on {query.device}")


def _problem(query: torch.Tensor, kv_cache: torch.Tensor, window: int) -> Problem:
    _, num_heads, head_size = query.shape
    return Problem(query.dtype, num_heads, kv_cache.shape[1], head_size, head_size, window)


def _check_plan(plan: AttentionPlan, query: torch.Tensor, kv_cache: torch.Tensor, seq_lens: torch.Tensor,
                max_query_len: int, window: int) -> None:
    """Raises if the plan was made for something else."""
    made_for, asked = plan.planner.problem, replace(_problem(query, kv_cache, window), core=plan.planner.problem.core)
    if made_for != asked or plan.planner.device != query.device:
        checks.fail(_OP, "plan", f"for {made_for} on {plan.planner.device}", f"for {asked} on {query.device}")
    if plan.num_reqs != seq_lens.shape[0] or max_query_len > plan.max_query_len:
        checks.fail(_OP, "plan", f"for {plan.num_reqs} requests and queries of up to {plan.max_query_len} tokens",
                    f"for {seq_lens.shape[0]} requests and queries of up to {max_query_len}")


def paged_attention(query: torch.Tensor, kv_cache: torch.Tensor, block_table: torch.Tensor, seq_lens: torch.Tensor,
                    query_start_loc: torch.Tensor, *, max_query_len: int, scale: float,
                    out: torch.Tensor | None = None, window: int = 0, sinks: torch.Tensor | None = None,
                    plan: AttentionPlan | None = None) -> torch.Tensor:
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
        out = torch.empty_like(query, memory_format=torch.contiguous_format)
    if plan is None:
        _check(query, kv_cache, block_table, seq_lens, out, scale, sinks)
        num_reqs, tokens = seq_lens.shape[0], query.shape[0]
        if tokens == 0 or num_reqs == 0:
            return out
        problem = _problem(query, kv_cache, window)
        # Queries that are too long for a decode step's kernels want no planner of their own, which has buffers.
        short = max_query_len * problem.num_heads <= served.MAX_GROUP * problem.num_kv_heads
        planner = _planner(problem, query.device, _power_of_two(num_reqs), _power_of_two(tokens),
                           max_query_len if short else 1)
        plan = planner.plan(query_start_loc, seq_lens, max_query_len, tokens)
    if not plan.planner.run(plan, query, kv_cache, block_table, seq_lens, out, max_query_len, scale, window, sinks):
        _check(query, kv_cache, block_table, seq_lens, out, scale, sinks)
        _check_plan(plan, query, kv_cache, seq_lens, max_query_len, window)
        raise ValueError(f"{_OP}: an argument has no memory; all must be tensors of this device's memory")
    return out
