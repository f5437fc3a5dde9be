# SPDX-License-Identifier: Apache-2.0
"""A worker's extension for divided keys on the CPU, whose own kernel of slots knows of one rank alone: where this is
imported, which is a worker, there is another.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.worker.block_table import BlockTable

from rocmforge_plugin.vllm.report import LaunchCounts

from .ranks import held_before


def divided_slots(self: Any, num_reqs: int, query_start_loc: torch.Tensor, positions: torch.Tensor) -> None:
    """`BlockTable.compute_slot_mapping`: -1 where another rank keeps the token."""
    size, rank, run = self.dcp_world_size, self.dcp_rank, self.cp_kv_cache_interleave_size
    tokens = int(query_start_loc[num_reqs])
    place = positions[:tokens].long()
    queries = (query_start_loc[1 : num_reqs + 1] - query_start_loc[:num_reqs]).long()
    request = torch.repeat_interleave(torch.arange(num_reqs), queries)
    page = self.block_table.gpu[request, place // (self.block_size * size)].long()
    slots = page * self.block_size + held_before(place, size, run) % self.block_size
    self.slot_mapping.gpu[:tokens] = torch.where(place // run % size == rank, slots, -1)
    self.slot_mapping.gpu[tokens:] = -1


class Worker(LaunchCounts):
    """Counts launches too."""


BlockTable.compute_slot_mapping = divided_slots
