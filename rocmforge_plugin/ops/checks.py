# SPDX-License-Identifier: Apache-2.0
"""Checks of the ops' arguments, and the integers that the host module takes in their place.

Every message names the argument, what came and what would work. No check reads a tensor's values: that would wait for
the device and break graph capture.
"""

from __future__ import annotations

from typing import NoReturn

import torch

# Numbered as csrc/launch/element.h does.
ELEMENTS: dict[torch.dtype, int] = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}

Rows = tuple[int, int, int]  # pointer, token stride, head stride (in elements)
NO_ROWS: Rows = (0, 0, 0)


def fail(op: str, argument: str, came: object, works: str) -> NoReturn:
    """Raises ValueError in the one form that all messages have."""
    raise ValueError(f"{op}: {argument} is {came}; it must be {works}")


def plain(op: str, **arguments: object) -> None:
    """TypeError unless all are torch tensors or parameters: another subclass's memory may be elsewhere, or nowhere."""
    for name, value in arguments.items():
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise TypeError(f"{op}: {name} is a {type(value).__name__}; it must be a torch.Tensor, not of a subclass")


def shape_of(tensor: torch.Tensor) -> str:
    """A tensor's shape and strides, for messages."""
    return f"{list(tensor.shape)} with strides {list(tensor.stride())}"


def element(op: str, argument: str, tensor: torch.Tensor) -> int:
    """The number of the tensor's dtype; TypeError unless it is one the kernels are built for."""
    number = ELEMENTS.get(tensor.dtype)
    if number is None:
        raise TypeError(f"{op}: {argument} is {tensor.dtype}; it must be bfloat16, float16 or float32")
    return number


def same_dtype(op: str, argument: str, tensor: torch.Tensor, like: str, dtype: torch.dtype) -> None:
    """TypeError unless the dtypes agree."""
    if tensor.dtype != dtype:
        raise TypeError(f"{op}: {argument} is {tensor.dtype}; it must have {like}'s dtype, {dtype}")


def same_device(op: str, argument: str, tensor: torch.Tensor, like: str, other: torch.Tensor) -> None:
    """ValueError unless both tensors are on one device."""
    if tensor.device != other.device:
        fail(op, argument, f"on {tensor.device}", f"on {like}'s device, {other.device}")


def rows(op: str, argument: str, tensor: torch.Tensor, head_size: int, *, written: bool = False) -> tuple[int, Rows]:
    """Heads of a tensor [tokens, heads * head_size] or [tokens, heads, head_size], and where its rows lie.

    The strides between tokens and between heads are free; a head's elements must be contiguous. A stride that no
    element depends on counts as 0, so that it does not narrow the memory accesses.
    """
    shape, stride = tensor.shape, tensor.stride()
    if len(shape) == 3:
        tokens, heads, size = shape
        if size != head_size:
            fail(op, argument, shape_of(tensor), f"[tokens, heads, {head_size}] or [tokens, heads * {head_size}]")
        token_stride, head_stride, inner = stride
    elif len(shape) == 2:
        tokens, width = shape
        heads = width // head_size
        if heads * head_size != width:
            fail(op, argument, shape_of(tensor), f"[tokens, heads, {head_size}] or [tokens, heads * {head_size}]")
        token_stride, inner = stride
        head_stride = head_size
    else:
        fail(op, argument, shape_of(tensor), f"[tokens, heads, {head_size}] or [tokens, heads * {head_size}]")
    if inner != 1 and head_size > 1 and tokens and heads:
        fail(op, argument, shape_of(tensor), "contiguous in its last dimension (stride 1)")
    if tokens < 2:
        token_stride = 0
    elif written and token_stride == 0:
        fail(op, argument, shape_of(tensor), "a tensor of its own, not an expanded one, since it is written")
    if heads < 2:
        head_stride = 0
    elif written and head_stride == 0 and tokens:
        fail(op, argument, shape_of(tensor), "a tensor of its own, not an expanded one, since it is written")
    return heads, (tensor.data_ptr(), token_stride, head_stride)


def cache(op: str, kv_cache: torch.Tensor, slot_mapping: torch.Tensor, heads: int, head_size: int,
          tokens: int) -> tuple[int, ...]:
    """A cache [blocks, heads, block_size, 2 * head_size] and its slots, as the host module takes them."""
    shape, stride = kv_cache.shape, kv_cache.stride()
    if len(shape) != 4 or shape[1] != heads or shape[3] != 2 * head_size:
        fail(op, "kv_cache", shape_of(kv_cache), f"[blocks, {heads}, block_size, {2 * head_size}] (keys, then values)")
    blocks, _, block_size, _ = shape
    if stride[3] != 1:
        fail(op, "kv_cache", shape_of(kv_cache), "contiguous in its last dimension (stride 1)")
    if blocks * block_size >= 1 << 31:
        fail(op, "kv_cache", f"{blocks} blocks of {block_size}", "fewer than 2^31 slots")
    if slot_mapping.dtype != torch.int64:
        raise TypeError(f"{op}: slot_mapping is {slot_mapping.dtype}; it must be int64")
    slots = slot_mapping.shape[0] if slot_mapping.dim() == 1 else -1
    if slots < 0 or slots > tokens:
        fail(op, "slot_mapping", shape_of(slot_mapping), f"[slots] with at most as many slots as tokens, {tokens}")
    if slots > 1 and slot_mapping.stride(0) != 1:
        fail(op, "slot_mapping", shape_of(slot_mapping), "contiguous")
    return (kv_cache.data_ptr(), stride[0], stride[1], stride[2], blocks, max(block_size, 1), slot_mapping.data_ptr(),
            slots)
