# SPDX-License-Identifier: Apache-2.0
"""The host module (csrc/): devices and their kernels, and the ops, which take torch's tensors as they are.

An op returns None where it launched, or the name of the condition that its arguments do not meet, such as
"query.dtype"; ops/checks.py words it. A stream is an integer, as torch hands it out; 0 on the CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch

interface: str
conditions: dict[str, tuple[str, ...]]
block_multiple: int
mask_batch_dims: int

class DeviceError(RuntimeError): ...

class DriverError(RuntimeError):
    call: str
    code: int
    kernel: str

class Device:
    def __init__(self, kind: str, ordinal: int, kernels_dir: str, library: str = "") -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def compute_units(self) -> int: ...
    @property
    def target(self) -> str: ...
    @property
    def synchronous(self) -> bool: ...
    def kernel_names(self) -> list[str]: ...
    def kernel_config(self, name: str) -> dict[str, int]: ...
    def launch(self, name: str, grid: Sequence[int], stream: int, args: bytes) -> None: ...

class Problem:
    def __init__(
        self,
        *,
        op: str,
        element: str,
        key_dims: int,
        value_dims: int,
        kv_heads: int,
        group: int,
        window: int,
        listed: bool,
        clamped: bool,
        capped: bool,
        sloped: bool,
        partial_dims: int,
        suffix: str,
        combine_suffix: str,
    ) -> None: ...

class AttentionPlanner:
    def __init__(
        self, device: Device, problem: Problem, requests: int, tokens: int, decode_query_len: int, invariant: bool
    ) -> None: ...
    @property
    def row_elements(self) -> int: ...
    @property
    def plan_words(self) -> int: ...
    @property
    def workspace_floats(self) -> int: ...
    def use_buffers(self, plan: int, workspace: int, device: int, spans: int) -> None: ...
    def plan(
        self,
        stream: int,
        query_start_loc: torch.Tensor,
        seq_lens: torch.Tensor,
        tokens: int,
        max_query_len: int,
        causal: bool | torch.Tensor,
        ranges: torch.Tensor | None,
    ) -> str | None: ...
    def run_paged(
        self,
        stream: int,
        requests: int,
        tokens: int,
        plan_query_len: int,
        plan_causal: bool | torch.Tensor,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor | None,
        sinks: torch.Tensor | None,
        alibi_slopes: torch.Tensor | None,
        max_query_len: int,
        scale: float,
        window: int,
        soft_cap: float,
        causal: bool | torch.Tensor,
    ) -> str | None: ...
    def plan_and_run_paged(
        self,
        stream: int,
        query_start_loc: torch.Tensor,
        tokens: int,
        ranges: torch.Tensor | None,
        query: torch.Tensor,
        kv_cache: torch.Tensor,
        block_table: torch.Tensor,
        seq_lens: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor | None,
        sinks: torch.Tensor | None,
        alibi_slopes: torch.Tensor | None,
        max_query_len: int,
        scale: float,
        window: int,
        soft_cap: float,
        causal: bool | torch.Tensor,
    ) -> str | None: ...

def run_latent(
    planner: AttentionPlanner,
    stream: int,
    requests: int,
    tokens: int,
    plan_query_len: int,
    plan_causal: bool | torch.Tensor,
    query_latent: torch.Tensor,
    query_rope: torch.Tensor | None,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    max_query_len: int,
    scale: float,
    causal: bool | torch.Tensor,
) -> str | None: ...
def plan_and_run_latent(
    planner: AttentionPlanner,
    stream: int,
    query_start_loc: torch.Tensor,
    tokens: int,
    query_latent: torch.Tensor,
    query_rope: torch.Tensor | None,
    kv_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    max_query_len: int,
    scale: float,
    causal: bool | torch.Tensor,
) -> str | None: ...
def run_varlen(
    planner: AttentionPlanner,
    stream: int,
    requests: int,
    tokens: int,
    plan_query_len: int,
    plan_causal: bool | torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    max_query_len: int,
    scale: float,
    window: int,
    causal: bool | torch.Tensor,
) -> str | None: ...
def plan_and_run_varlen(
    planner: AttentionPlanner,
    stream: int,
    query_start_loc: torch.Tensor,
    tokens: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    key_start_loc: torch.Tensor,
    seq_lens: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor | None,
    max_query_len: int,
    scale: float,
    window: int,
    causal: bool | torch.Tensor,
) -> str | None: ...
def decode_rows(device: Device, problem: Problem) -> int: ...
def causal_mask(device: Device, stream: int, scores: torch.Tensor, cache_len: int) -> str | None: ...
def kv_write(
    device: Device,
    stream: int,
    key: torch.Tensor,
    value: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> str | None: ...
def latent_kv_write(
    device: Device,
    stream: int,
    kv_c: torch.Tensor,
    k_rope: torch.Tensor | None,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
) -> str | None: ...
def rotary(
    device: Device,
    stream: int,
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor | None,
    query_out: torch.Tensor | None,
    key_out: torch.Tensor | None,
    cos_sin_cache: torch.Tensor,
    head_size: int,
    interleaved: bool,
    mrope_section: Sequence[int] | None,
    mrope_interleaved: bool,
    halves: bool,
) -> str | None: ...
def apply_rotary(
    device: Device,
    stream: int,
    x: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    out: torch.Tensor,
    interleaved: bool,
) -> str | None: ...
def rotary_latent_kv_write(
    device: Device,
    stream: int,
    positions: torch.Tensor,
    query_rope: torch.Tensor,
    k_rope: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    kv_c: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    interleaved: bool,
) -> str | None: ...
def rotary_kv_write(
    device: Device,
    stream: int,
    positions: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cos_sin_cache: torch.Tensor,
    kv_cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    interleaved: bool,
    mrope_section: Sequence[int] | None,
    mrope_interleaved: bool,
    q_norm_weight: torch.Tensor | None,
    k_norm_weight: torch.Tensor | None,
    eps: float,
    query_out: torch.Tensor | None,
) -> str | None: ...
def use_torch(tensor: type, parameter: type, types: Sequence[Any], exchange: object | None) -> bool: ...
def launches() -> dict[str, int]: ...
def reset_launches() -> None: ...
def cpu_threads() -> int: ...
def set_cpu_threads(threads: int) -> None: ...
def set_share_torch_threads(share: bool) -> None: ...
def parse_amd_arch(name: str) -> tuple[str, list[str]]: ...
def amd_targets(processor: str) -> list[str]: ...
def cuda_targets(major: int, minor: int) -> list[str]: ...
