# SPDX-License-Identifier: Apache-2.0
"""The words for what is wrong with an op's arguments.

The host module reads and checks them (csrc/conditions.h) and returns the name of the condition that failed, such as
"query.dtype"; here it becomes an error that names the argument, what came and what would work. No check reads a
tensor's values: that would wait for the device and break graph capture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import Formatter
from typing import Any, NoReturn

import torch

from .. import _C, device, served

ELEMENTS = frozenset(getattr(torch, name) for name in served.ELEMENTS)  # dtypes
PLAIN = (torch.Tensor, torch.nn.Parameter)  # other subclasses' memory may be elsewhere, or nowhere

# What must be, by the condition's name or, where all arguments have the same words, by what comes after its dot: format
# strings over the op's arguments, the first of which the others must agree with.
Works = dict[str, str]
ANY_ELEMENT = " or ".join(served.ELEMENTS)
_ALWAYS: Works = {
    "tensor": "a dense torch.Tensor, of no subclass, in the memory of the CPU or a GPU",
    "dtype": "of {first_name}'s dtype, {first.dtype}",
    "device": "on {first_name}'s device, {first.device}",
    "tokens": "of as many tokens as {first_name}, {first.shape[0]}",
    "contiguous": "contiguous in its last dimension (stride 1)",
    "own": "a tensor of its own, not an expanded one, since it is written",
}


class _Words(Formatter):
    """Shapes as lists, as messages show them everywhere."""

    def format_field(self, value: Any, format_spec: str) -> str:
        return str(list(value)) if isinstance(value, torch.Size) else super().format_field(value, format_spec)


def fail(op: str, argument: str, came: object, works: str, error: type[Exception] = ValueError) -> NoReturn:
    """Raises the error in the one form that all messages have."""
    raise error(f"{op}: {argument} is {came}; it must be {works}")


def shape_of(tensor: torch.Tensor) -> str:
    """A tensor's shape and strides, for messages."""
    return f"{list(tensor.shape)} with strides {list(tensor.stride())}"


def works_of(condition: str, works: Works) -> str:
    """What must be, as a format string; KeyError for a condition without words."""
    what = condition.split(".")[1]
    return works[condition] if condition in works else _ALWAYS[what]


def refuse(op: str, condition: str, works: Works, arguments: Mapping[str, Any]) -> NoReturn:
    """Raises for a condition that does not hold, with the op's own words and its arguments by their names."""
    argument, what = condition.split(".")
    value = arguments[argument]
    if what == "tensor":
        unreadable(op, argument, value)
    first_name, first = next(iter(arguments.items()))
    text = _Words().vformat(
        works_of(condition, works), (), {"op": op, "first_name": first_name, "first": first, **arguments}
    )
    came, error = _CAME.get(what, (_as_it_is, ValueError))
    fail(op, argument, came(value), text, error)


def _as_it_is(value: object) -> object:
    return shape_of(value) if isinstance(value, torch.Tensor) else value


# What to show of an argument, and the error's type, where that is not shape and strides and ValueError.
_CAME: Mapping[str, tuple[Callable[[Any], object], type[Exception]]] = {
    "dtype": (lambda tensor: tensor.dtype, TypeError),
    "device": (lambda tensor: f"on {tensor.device}", ValueError),
    "op": (lambda plan: f"for {plan.planner.problem.op}", ValueError),
    "aligned": (lambda tensor: f"{shape_of(tensor)} at address {tensor.data_ptr():#x}", ValueError),
}


def unreadable(op: str, argument: str, value: object) -> NoReturn:
    """Raises for what the host module cannot read."""
    works = _ALWAYS["tensor"]
    if not isinstance(value, torch.Tensor) or type(value) not in PLAIN:
        fail(op, argument, f"a {type(value).__name__}", works, TypeError)
    if value.layout is not torch.strided:
        fail(op, argument, f"of layout {value.layout}", works)
    if value.is_neg():
        fail(op, argument, "a negated view", f"{works}; resolve_neg() makes one")
    if value.device.type not in ("cpu", "cuda"):
        fail(op, argument, f"on {value.device}", works)
    fail(op, argument, "without memory of its own", works)


def of_dims(op: str, *asked: tuple[str, torch.Tensor, int, str]) -> None:
    """Raises unless each tensor, by (name, tensor, dimensions, words for its shape), is placed and has them."""
    for name, tensor, dims, works in asked:
        placed(op, name, tensor)
        if tensor.dim() != dims:
            fail(op, name, shape_of(tensor), works)


def placed(op: str, argument: str, tensor: torch.Tensor) -> None:
    """Raises unless it is a plain tensor of a kind of device that there are kernels for."""
    if type(tensor) not in PLAIN or tensor.device.type not in ("cpu", "cuda"):
        unreadable(op, argument, tensor)


def place(op: str, argument: str, tensor: torch.Tensor) -> tuple[_C.Device, int]:
    """The runtime's device of an op's first tensor and torch's current stream there, as the host module takes it.

    Raises:
        TypeError, ValueError: it is no tensor of a device that rocmforge has kernels for.
        DeviceError: no kernels are built for the device, or its driver library is missing.
    """
    if type(tensor) not in PLAIN or tensor.is_neg():  # its memory holds the negatives of its elements
        unreadable(op, argument, tensor)
    index = tensor.get_device()
    found = device.known(index)
    if found is None:
        placed(op, argument, tensor)
        found = device.open_device(tensor.device)
    return found, device.stream_of(index)


def empty_like(op: str, argument: str, tensor: torch.Tensor) -> torch.Tensor:
    """A new contiguous tensor of an argument's shape."""
    placed(op, argument, tensor)
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
