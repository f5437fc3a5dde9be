# SPDX-License-Identifier: Apache-2.0
"""What a batch says of its masks, in buffers that stay where they are; and which masks a layer has.

A plan that is made within a graph reads its tensors where they were at the capture, and a copy to the device may still
be under way when the next step is prepared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

Span = tuple[int, int]  # the first and the last position, both included
CLAMP = "mm_prefix_clamp_sliding_window"  # vLLM's attribute of a layer


def mask_of(layer: Any, model_has_ranges: bool, layers: Iterable[Any]) -> str:
    """The mask of a problem (`Problem.mask`) that a layer has.

    Args:
        layer: vLLM's.
        model_has_ranges: whether tokens of the model's images see each other; vLLM asks the whole model's
            configuration for it, since a layer may have been made with that of its language model alone.
        layers: all layers of the model. Where some clamp ranges to their windows (Gemma 4), those without a window have
            no ranges at all: vLLM takes them out of its own backends' metadata, by the names that they have there.
    """
    has_ranges = model_has_ranges or getattr(layer, "use_mm_prefix", False)
    if not has_ranges or getattr(layer, "attn_type", "decoder") != "decoder":
        return "windowed"
    if getattr(layer, CLAMP, False):
        return "clamped_ranges"
    return "windowed" if any(getattr(other, CLAMP, False) for other in layers) else "ranges"


class CausalRequests:
    """Which requests of a batch are causal, where they differ."""

    def __init__(self, device: torch.device, max_num_reqs: int) -> None:
        self._buffer = torch.zeros(max_num_reqs, dtype=torch.int32, device=device)

    def hold(self, causal: torch.Tensor, requests: int) -> torch.Tensor:
        """int32 [requests], always in the same place for batches that vLLM is set up for.

        Args:
            causal: [requests or more] of any dtype: nonzero where a request is causal.
            requests: of the batch.
        """
        if requests > self._buffer.shape[0]:  # of which there are no graphs
            return causal[:requests].to(self._buffer)
        held = self._buffer[:requests]
        held.copy_(causal[:requests], non_blocking=True)
        return held


class RequestRanges:
    """The ranges of keys that see each other, of each request: those of its images."""

    def __init__(self, device: torch.device, max_num_reqs: int) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._copied: torch.cuda.Event | None = None
        self._held: dict[int, list[Span]] = {}  # what the device has
        self._make(max_num_reqs, 1)

    def _make(self, requests: int, most: int) -> None:
        self._host = torch.zeros(requests, most, 2, dtype=torch.int32, pin_memory=self._pinned)
        self._buffer = torch.zeros(requests, most, 2, dtype=torch.int32, device=self._device)
        self._held = {}

    def hold(
        self, ranges: Mapping[int, Sequence[Span]] | None, requests: int, capturing: bool = False
    ) -> torch.Tensor | None:
        """int32 [requests, n, 2] as `AttentionPlanner.plan` takes them, or None where no request has ranges.

        Args:
            ranges: of requests by their places in the batch, ends included.
            requests: of the batch.
            capturing: whether a graph is being captured, to which no memory must be added.

        Raises:
            RuntimeError: there are more ranges than memory, while a graph is captured.
        """
        found = {place: list(spans) for place, spans in (ranges or {}).items() if spans and place < requests}
        if not found:
            return None
        most = max(map(len, found.values()))
        rows, columns = self._buffer.shape[:2]
        if requests > rows or most > columns:
            if capturing:
                raise RuntimeError(
                    f"a batch of {requests} requests with up to {most} images each comes while a graph is captured, "
                    f"and there is memory for {rows} with {columns}; capture graphs with batches of text, as vLLM does"
                )
            self._make(max(requests, rows), max(columns, 1 << (most - 1).bit_length()))
        if found != self._held:
            self._send(found)
        return self._buffer[:requests]

    def _send(self, found: dict[int, list[Span]]) -> None:
        if self._copied is not None:
            self._copied.synchronize()  # the last copy, which reads what is written now
        self._host.zero_()
        for place, spans in found.items():
            self._host[place, : len(spans)] = torch.tensor(spans, dtype=torch.int32)
        self._buffer.copy_(self._host, non_blocking=True)
        if self._pinned:
            self._copied = self._copied or torch.cuda.Event()
            self._copied.record()
        self._held = found
