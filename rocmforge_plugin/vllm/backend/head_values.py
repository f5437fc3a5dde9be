# SPDX-License-Identifier: Apache-2.0
"""Values that a layer has for each query head, sinks and ALiBi's slopes, in float32 as the kernels read them.

Sinks are a parameter of the model, which may be updated in place at any time: by a reload, by a trainer, after sleep
has given up the weights' memory. Nothing announces it, and the parameter's version does not count it, since loaders
write through `.data`. So a parameter in float32 is read where it is, and one in another dtype is copied once a step,
all of a builder's layers at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class HeadValues:
    """One layer's, [heads].

    Attributes:
        tensor: float32 and contiguous on the device of the cache; None until `place`. It stays where it is, as a graph
            that was captured over it needs.
    """

    def __init__(self, source: torch.Tensor | Sequence[float]) -> None:
        self.source = source
        self.tensor: torch.Tensor | None = None

    @property
    def is_copied(self) -> bool:
        """Whether `tensor` is a copy of a parameter, which must follow it."""
        return isinstance(self.source, torch.Tensor) and self.tensor is not self.source

    def place(self, device: torch.device) -> torch.Tensor:
        """Makes `tensor`, the first time; not while weights are loaded, in memory that sleep gives up.

        Raises RuntimeError where a graph is being captured, to which the memory would belong.
        """
        if self.tensor is None:
            if self._is_readable(device):
                assert isinstance(self.source, torch.Tensor)
                self.tensor = self.source
            else:
                if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                    raise RuntimeError(
                        "rocmforge first meets a layer with sinks or ALiBi slopes while a graph is captured, where no "
                        "memory can be made for them; run the layer once before the capture "
                        "(compilation_config.cudagraph_num_of_warmups=1), or set "
                        "compilation_config.cudagraph_mode=PIECEWISE"
                    )
                with torch.inference_mode(False):  # it is also written outside of that mode
                    self.tensor = torch.empty(len(self.source), dtype=torch.float32, device=device)
                self.refresh()
        return self.tensor

    def refresh(self) -> None:
        """Writes the values to where they were placed, if they were."""
        if self.tensor is None or self.tensor is self.source:
            return
        values = self.source if isinstance(self.source, torch.Tensor) else torch.tensor(self.source)
        with torch.no_grad():
            self.tensor.copy_(values)

    def _is_readable(self, device: torch.device) -> bool:
        """Whether the kernels can read the parameter itself."""
        source = self.source
        if not isinstance(source, torch.Tensor) or source.dtype != torch.float32 or not source.is_contiguous():
            return False
        return source.device.type == device.type and device.index in (None, source.device.index)


class Copies:
    """The copies of parameters that a builder's layers read, which one call brings up to date."""

    def __init__(self) -> None:
        self._tensors: list[torch.Tensor] = []
        self._parameters: list[torch.Tensor] = []

    def add(self, values: HeadValues) -> None:
        """Keeps the placed values of a layer up to date from now on. Safe to call again."""
        if values.is_copied and not any(values.tensor is known for known in self._tensors):
            assert values.tensor is not None and isinstance(values.source, torch.Tensor)
            self._tensors.append(values.tensor)
            self._parameters.append(values.source)
            values.refresh()

    def refresh(self) -> None:
        """Copies every parameter, in one launch where all are on one device."""
        if self._tensors:
            with torch.no_grad():
                torch._foreach_copy_(self._tensors, self._parameters)
