# SPDX-License-Identifier: Apache-2.0
"""Decode context parallelism: ranks that have the same KV head divide a request's keys among them.

Runs of `cp_kv_cache_interleave_size` tokens go to the ranks in turn, and each keeps its own, so that a rank's cache has
no order of positions that a causal mask could go by. Before a step's new tokens, though, every token sees everything.
So a layer attends in two parts, which their log-sum-exps join: the heads of all ranks to what this rank has of the
context, in full, summed over ranks; and this rank's heads to the new tokens, causally, from the tensors they came in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from vllm.distributed.parallel_state import get_dcp_group, get_dcp_world_size_and_rank
from vllm.platforms import current_platform
from vllm.v1.attention.backend import CommonAttentionMetadata
from vllm.v1.attention.backends.utils import get_dcp_local_seq_lens

from rocmforge_plugin.ops import AttentionPlan, AttentionPlanner, paged_attention, varlen_attention
from rocmforge_plugin.problem import Problem
from rocmforge_plugin.vllm.backend.eligibility import problem_refusals
from rocmforge_plugin.vllm.backend.plans import capturing, number_of
from rocmforge_plugin.vllm.backend.target import target


class Ranks(NamedTuple):
    """Who divides the keys of a group of layers.

    Attributes:
        size: ranks that have the same KV head.
        rank: this one's place among them.
        run: successive tokens that a rank keeps.
    """

    size: int
    rank: int
    run: int


def ranks_of(kv_cache_spec: Any, vllm_config: Any) -> Ranks | None:
    """None where every rank has all keys. Raises ValueError for layers whose keys cannot be divided."""
    size, rank = get_dcp_world_size_and_rank(getattr(kv_cache_spec, "dcp_sharded", True))
    if size == 1:
        return None
    if getattr(kv_cache_spec, "attention_chunk_size", None):
        raise ValueError(
            "chunked local attention beside decode context parallelism is not supported; "
            "set --decode-context-parallel-size 1"
        )
    return Ranks(size, rank, vllm_config.parallel_config.cp_kv_cache_interleave_size)


class Plans(NamedTuple):
    """Of one problem in one step."""

    context: AttentionPlan
    new: AttentionPlan


@dataclass
class DividedStep:
    """A step of layers whose keys are divided.

    Attributes:
        owner: the builder's.
        query_start_loc: int32 [requests + 1].
        context_lens: int32 [requests], keys of each request before this step's that this rank has.
        query_lens: int32 [requests], this step's tokens.
        max_query_len, num_tokens: as in the batch.
        has_context: whether any request has context, on any rank: all ranks say the same, as they all must meet.
        plans: of each problem, by its number.
    """

    owner: DividedPlanners
    query_start_loc: torch.Tensor
    context_lens: torch.Tensor
    query_lens: torch.Tensor
    max_query_len: int
    num_tokens: int
    has_context: bool
    plans: dict[int, Plans]

    def plans_of(self, problem: Problem) -> Plans:
        """Those of a layer, which the builder may not have known of."""
        number = self.owner.add(problem)
        if number not in self.plans:
            self.plans[number] = self.owner.plan(number, self)
        return self.plans[number]


class DividedPlanners:
    """Two planners for each problem of a builder's layers, and the lengths that they plan by, in buffers that stay.

    Args:
        ranks: who divides the keys.
        device: torch device.
        max_num_reqs, max_num_tokens: of a batch.
        decode_query_len: query tokens of a request in a decode step.
    """

    def __init__(
        self, ranks: Ranks, device: torch.device, max_num_reqs: int, max_num_tokens: int, decode_query_len: int
    ) -> None:
        self._ranks = ranks
        self._bounds = (max_num_reqs, max_num_tokens, decode_query_len)
        self._context_lens, self._query_lens = torch.zeros(2, max_num_reqs, dtype=torch.int32, device=device)
        self._planners: dict[int, tuple[AttentionPlanner, AttentionPlanner]] = {}
        self._device = device

    def add(self, problem: Problem) -> int:
        """Knows `problem`, a layer's with this rank's heads, from now on; its number.

        Raises ValueError where the parts have no kernels, RuntimeError where a graph is being captured, to which their
        memory would belong.
        """
        number = number_of(problem)
        if number in self._planners:
            return number
        parts = parts_of(problem, self._ranks.size)
        reasons = [reason for part in parts for reason in problem_refusals(part, target())]
        if problem.num_kv_heads != 1:
            reasons.append(f"num_kv_heads of a rank is {problem.num_kv_heads}; it must be 1")
        if reasons:
            raise ValueError(
                f"decode context parallelism of {self._ranks.size} ranks has no kernels for this layer: "
                f"{'; '.join(reasons)}; or set --decode-context-parallel-size 1"
            )
        if capturing(self._device):
            raise RuntimeError(
                f"rocmforge first meets {problem} while a graph is captured, where no plan's memory can be made; run "
                "the layer once before the capture (compilation_config.cudagraph_num_of_warmups=1)"
            )
        reqs, tokens, decode_query_len = self._bounds
        context, new = parts
        self._planners[number] = (
            AttentionPlanner(context, self._device, reqs, tokens, decode_query_len),
            AttentionPlanner(new, self._device, reqs, tokens),
        )
        return number

    def step(self, common: CommonAttentionMetadata) -> DividedStep:
        """Lengths and plans of a step, from what is on the device. Raises ValueError for a batch that is not causal."""
        if common.causal is not True:
            raise ValueError(
                "a batch that is not causal is not supported beside decode context parallelism; "
                "set --decode-context-parallel-size 1"
            )
        starts, requests = common.query_start_loc, common.seq_lens.shape[0]
        context_lens, query_lens = self._context_lens[:requests], self._query_lens[:requests]
        torch.sub(starts[1:], starts[:-1], out=query_lens)
        before = (common.seq_lens - query_lens).clamp_min_(0)
        context_lens.copy_(get_dcp_local_seq_lens(before, *self._ranks))
        step = DividedStep(
            self,
            starts,
            context_lens,
            query_lens,
            common.max_query_len,
            common.num_actual_tokens,
            may_have_context(common),
            {},
        )
        step.plans = {number: self.plan(number, step) for number in self._planners}
        return step

    def plan(self, number: int, step: DividedStep) -> Plans:
        """Both plans of a problem that is known."""
        context, new = self._planners[number]
        batch = (step.max_query_len, step.num_tokens)
        return Plans(
            context.plan(step.query_start_loc, step.context_lens, *batch, False),
            new.plan(step.query_start_loc, step.query_lens, *batch, True),
        )


def parts_of(problem: Problem, ranks: int) -> tuple[Problem, Problem]:
    """What the heads of all ranks compute over the context, and this rank's over new tokens."""
    heads, kv_heads, dims = problem.num_heads, problem.num_kv_heads, (problem.key_dims, problem.value_dims)
    return (
        Problem(problem.dtype, heads * ranks, kv_heads, *dims),
        Problem(problem.dtype, heads, kv_heads, *dims, format="split"),
    )


def may_have_context(common: CommonAttentionMetadata) -> bool:
    """Whether a request of the batch has keys before this step's, as far as the host knows."""
    most = common.seq_lens_cpu_upper_bound
    if most is None:
        return True
    starts = common.query_start_loc_cpu
    queries = starts[1:] - starts[:-1]
    return bool((most[: queries.shape[0]] > queries).any())


def attend(
    impl: Any,
    query: torch.Tensor,
    key: torch.Tensor | None,
    value: torch.Tensor | None,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    step: DividedStep,
    output: torch.Tensor,
) -> torch.Tensor:
    """One layer's attention, into `output`; shapes as for `RocmForgeImpl.forward`, whose `impl` is.

    Raises ValueError where the new tokens' keys and values are not given.
    """
    if key is None or value is None:
        raise ValueError(
            "decode context parallelism needs the new tokens' keys and values, and this layer was given none; "
            "set --decode-context-parallel-size 1"
        )
    plans = step.plans_of(impl.problem(query.dtype))
    # Rows of padding say that they saw nothing of the context, whatever is there: what they hold stays finite.
    lse = query.new_zeros(query.shape[:2], dtype=torch.float32)
    varlen_attention(
        query,
        key,
        value,
        step.query_start_loc,
        step.query_start_loc,
        step.query_lens,
        max_query_len=step.max_query_len,
        scale=impl.scale,
        causal=True,
        out=output,
        lse=lse.t(),
        plan=plans.new,
    )
    if not step.has_context:
        return join(output, lse, None, None, impl.sinks)
    everyone = get_dcp_group().all_gather(query.contiguous(), dim=1)
    part_lse = query.new_full(everyone.shape[:2], -torch.inf, dtype=torch.float32)
    part = paged_attention(
        everyone,
        kv_cache,
        block_table,
        step.context_lens,
        step.query_start_loc,
        max_query_len=step.max_query_len,
        scale=impl.scale,
        causal=False,
        lse=part_lse.t(),
        plan=plans.context,
    )
    context, context_lse = impl.reduce_context(part, part_lse, get_dcp_group(), return_lse=True)
    return join(output, lse, context, context_lse, impl.sinks)


def join(
    out: torch.Tensor,
    lse: torch.Tensor,
    other: torch.Tensor | None,
    other_lse: torch.Tensor | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Joins results over different keys of the same queries, in place, with the sinks, which neither of them has.

    Args:
        out, other: [tokens, heads, head_size]; `other` is None where there are no more keys.
        lse, other_lse: float32 [tokens, heads], -inf where there were no keys, which not both may say.
        sinks: float32 [heads], or None.

    Returns:
        `out`.
    """
    total = lse if other_lse is None else torch.logaddexp(lse, other_lse)
    if sinks is not None:
        total = torch.logaddexp(total, sinks)
    if total is lse:
        return out
    joined = out * (lse - total).exp_().unsqueeze(-1)
    if other is not None and other_lse is not None:
        joined += other * (other_lse - total).exp_().unsqueeze(-1)
    return out.copy_(joined)


def reduction(parallel_config: Any) -> Any:
    """The function that sums up the ranks' parts, as the user chose by --dcp-comm-backend.

    vLLM's are Triton kernels, which the CPU does not have.
    """
    if current_platform.is_cpu():
        return reduce_in_torch
    from vllm.v1.attention.ops.dcp import cp_lse_ag_out_rs, dcp_a2a_lse_reduce

    return dcp_a2a_lse_reduce if parallel_config.dcp_comm_backend == "a2a" else cp_lse_ag_out_rs


def reduce_in_torch(
    out: torch.Tensor, lse: torch.Tensor, group: Any, return_lse: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums up what ranks have of all heads' results, and gives each rank its own heads.

    Args:
        out: [tokens, heads of all ranks, head_size], this rank's part.
        lse: float32 [tokens, heads of all ranks], -inf where this rank has no keys.
        group: vLLM's group of the ranks.
        return_lse: always; vLLM's functions have a choice.

    Returns:
        [tokens, heads, head_size], and float32 [tokens, heads], -inf where no rank has keys.
    """
    parts = group.all_gather(lse, dim=0).view(group.world_size, *lse.shape)
    total = parts.logsumexp(0)
    share = (lse - total).exp_().nan_to_num_(0.0)  # no keys anywhere: the difference of two infinities
    own = slice(group.rank_in_group * (lse.shape[1] // group.world_size), None)
    part = torch.where(share.unsqueeze(-1) > 0, out * share.unsqueeze(-1), 0.0)  # what nobody wrote may be NaN
    summed = group.reduce_scatter(part.to(out.dtype), dim=1)
    return summed, total[:, own][:, : summed.shape[1]]
