# SPDX-License-Identifier: Apache-2.0
"""Plans of an encoder's runs: one for each way in which its layers cut the tokens into sequences.

Nobody tells a layer that a run begins, and where sequences begin is on the device, which must not be waited for. But a
run's layers are all given the same tensor, and each is called once: a layer that comes back to a plan begins another
run, of whose lengths nothing is known. So it plans again, in the same buffers. The rule holds while a graph is captured
as well: the run before the capture has used the plan, so the capture's first layer records the launch that makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakValueDictionary

import torch
from vllm import envs

from rocmforge_plugin.ops import AttentionPlan, AttentionPlanner
from rocmforge_plugin.problem import Problem

# What cuts a batch into sequences: int32 [sequences + 1], or, where all are alike, how many there are of how many
# queries and keys.
Cut: TypeAlias = torch.Tensor | tuple[int, int, int]


@dataclass(frozen=True)
class Sequences:
    """Sequences one after the other, and their plan; shapes as `varlen_attention` has them."""

    query_start_loc: torch.Tensor
    key_start_loc: torch.Tensor
    seq_lens: torch.Tensor
    max_query_len: int
    plan: AttentionPlan


@dataclass
class _Step:
    """A plan in use, and what it was made of."""

    planner: AttentionPlanner
    cut: Cut  # held, so that no other tensor can be taken for it
    tokens: int
    sequences: Sequences
    layers: set[int]  # that have used it

    def is_of(self, cut: Cut, tokens: int) -> bool:
        same = self.cut is cut if isinstance(cut, torch.Tensor) else self.cut == cut
        return same and self.tokens == tokens


class EncoderPlans:
    """The plans of all layers of a problem on a device.

    Buffers that a graph was captured over are never given up, and partial results of all have one place, since layers
    run one after the other.
    """

    def __init__(self, problem: Problem, device: torch.device) -> None:
        self._problem = problem
        self.device = device
        self._steps: list[_Step] = []
        self._planners: list[AttentionPlanner] = []

    def of(self, layer: int, cut: Cut, tokens: int) -> Sequences:
        """The sequences of a layer's call, planned where no layer of this run has done so.

        Args:
            layer: a number of the layer's own.
            cut: as the layer is given it.
            tokens: query tokens of all sequences.
        """
        mine = next((step for step in self._steps if step.is_of(cut, tokens)), None)
        if mine is not None and layer not in mine.layers:
            mine.layers.add(layer)
            return mine.sequences
        # One that this layer has used before is of a run that is over, or of a cut that this layer is done with.
        step = mine or next((step for step in self._steps if layer in step.layers), None)
        planner = self._planner(step.planner if step is not None else None, _number_of(cut), tokens)
        made = _Step(planner, cut, tokens, self._plan(planner, cut, tokens), {layer})
        if step is None:
            self._steps.append(made)
        else:
            self._steps[self._steps.index(step)] = made
        return made.sequences

    def _planner(self, before: AttentionPlanner | None, sequences: int, tokens: int) -> AttentionPlanner:
        """The one before if it is large enough, else one that is larger in whatever that is too small in."""
        if before is not None:
            if before.max_num_reqs >= sequences and before.max_num_tokens >= tokens:
                return before
            sequences, tokens = max(sequences, before.max_num_reqs), max(tokens, before.max_num_tokens)
        made = AttentionPlanner(
            self._problem,
            self.device,
            _power_of_two(sequences),
            _power_of_two(tokens),
            beside=self._planners[0] if self._planners else None,
            batch_invariant=envs.VLLM_BATCH_INVARIANT,
        )
        self._planners.append(made)
        return made

    def _plan(self, planner: AttentionPlanner, cut: Cut, tokens: int) -> Sequences:
        if isinstance(cut, torch.Tensor):
            queries = keys = cut.to(self.device, torch.int32, non_blocking=True).contiguous()
            longest = tokens
        else:
            count, longest, key_len = cut
            queries = self._every(longest, count)
            keys = queries if key_len == longest else self._every(key_len, count)
        seq_lens = keys[1:] - keys[:-1]
        plan = planner.plan(queries, seq_lens, longest, tokens, causal=False)
        return Sequences(queries, keys, seq_lens, longest, plan)

    def _every(self, length: int, count: int) -> torch.Tensor:
        """Where sequences of one length begin."""
        return torch.arange(count + 1, dtype=torch.int32, device=self.device) * length


def _number_of(cut: Cut) -> int:
    return cut.shape[0] - 1 if isinstance(cut, torch.Tensor) else cut[0]


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


_shared: WeakValueDictionary[tuple[Problem, torch.device], EncoderPlans] = WeakValueDictionary()


def shared_plans(problem: Problem, device: torch.device) -> EncoderPlans:
    """Those of all layers that compute the same; they live as long as one of these holds them."""
    found = _shared.get((problem, device))
    if found is None:
        found = _shared[problem, device] = EncoderPlans(problem, device)
    return found
