# SPDX-License-Identifier: Apache-2.0
"""Ranks that divide requests' keys, without an engine: threads, of which one runs at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


def held_before(place: torch.Tensor, size: int, run: int) -> torch.Tensor:
    """How many tokens the rank that keeps the one at `place` has before it."""
    return place // (size * run) * run + place % run


class Meeting:
    """Of ranks. One thread runs until it waits for the others."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._turn = threading.Condition()
        self._brought: list[dict[int, torch.Tensor]] = []
        self._own = threading.local()

    def group(self) -> Group:
        """The calling thread's, in the place of vLLM's."""
        return self._own.group

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """`work(rank)` of every rank."""
        results: list[Any] = [None] * self.size

        def one(rank: int) -> None:
            self._own.group = Group(self, rank)
            with self._turn:
                try:
                    results[rank] = work(rank)
                except BaseException as error:  # the test's thread raises it
                    results[rank] = error
                    self._brought = [dict.fromkeys(range(self.size), torch.empty(0))] * 9  # nobody waits for this one
                    self._turn.notify_all()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results

    def exchange(self, rank: int, number: int, brought: torch.Tensor) -> list[torch.Tensor]:
        """What every rank brought to the meeting with that number."""
        while len(self._brought) <= number:
            self._brought.append({})
        self._brought[number][rank] = brought
        self._turn.notify_all()
        self._turn.wait_for(lambda: len(self._brought[number]) == self.size)
        return [self._brought[number][other] for other in range(self.size)]


class Group:
    """What the plugin asks of vLLM's group of ranks."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self._meeting, self.rank_in_group, self.world_size = meeting, rank, meeting.size
        self._met = 0

    def _exchange(self, brought: torch.Tensor) -> list[torch.Tensor]:
        self._met += 1
        return self._meeting.exchange(self.rank_in_group, self._met - 1, brought)

    def all_gather(self, brought: torch.Tensor, dim: int) -> torch.Tensor:
        return torch.cat(self._exchange(brought), dim)

    def reduce_scatter(self, brought: torch.Tensor, dim: int) -> torch.Tensor:
        summed = torch.stack(self._exchange(brought)).sum(0)
        return summed.chunk(self.world_size, dim)[self.rank_in_group].contiguous()
