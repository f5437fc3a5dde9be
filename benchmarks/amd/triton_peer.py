# SPDX-License-Identifier: Apache-2.0
"""Compiles vLLM's Triton attention kernels for AMD GPUs, as vLLM would launch them. No GPU is needed.

    python -m benchmarks.amd.triton_peer OUT

writes OUT/<target>_<prefill|decode>_<small|large>.co, vLLM's unified attention for bfloat16, head size 128, 32 query
and 8 KV heads, pages of 16 tokens: what `loops --triton OUT` and `counters --triton OUT` compare with; and
OUT/<target>_latent<1|2>_<small|large>.co, both stages of its decode from a latent cache (MLA) for 20 heads, with which
`mla --triton OUT` does. Beside each is a .json that says how vLLM launches it (triton_launch.py). The launch is taken
from vLLM's own function, whose kernel is replaced by one that notes its arguments. "small": the KV cache is below
2 GiB, for which Triton uses buffer loads; "large": it is not.

Needs vLLM and triton, as triton_compile.py says.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from ..kernels.mla_cases import AMD, KEY, LATENT, triton_splits
from .cards import CARDS
from .triton_compile import Launch, launches, write

from vllm.v1.attention.ops import triton_decode_attention as latent  # isort: skip  behind triton_compile's settings
from vllm.v1.attention.ops import triton_unified_attention as unified  # isort: skip

TARGETS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1200", "gfx1201")
HEADS, KV_HEADS, HEAD, PAGE, SEGMENTS = 32, 8, 128, 16, 16
KV_CACHE = {"small": (), "large": ("key_cache_ptr", "value_cache_ptr", "K_Buffer", "V_Buffer")}


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def unified_launch(decode: bool, large: bool) -> Launch:
    """What vLLM launches for a batch of 4 decoding requests, or of 4 prompts of 512 tokens."""
    query_len = 1 if decode else 512
    tokens, blocks = 4 * query_len, (40000 if large else 1024)
    cache = meta(blocks, 2, PAGE, KV_HEADS, HEAD)
    segments = (tokens, HEADS, SEGMENTS)

    def call() -> None:
        unified.unified_attention(
            q=meta(tokens, HEADS, HEAD),
            k=cache[:, 0],
            v=cache[:, 1],
            out=meta(tokens, HEADS, HEAD),
            cu_seqlens_q=meta(5, dtype=torch.int32),
            max_seqlen_q=query_len,
            seqused_k=meta(4, dtype=torch.int32),
            max_seqlen_k=4096,
            softmax_scale=HEAD**-0.5,
            causal=True,
            window_size=(-1, -1),
            block_table=meta(4, 256, dtype=torch.int32),
            softcap=0,
            q_descale=None,
            k_descale=None,
            v_descale=None,
            seq_threshold_3D=128,
            num_par_softmax_segments=SEGMENTS,
            softmax_segm_output=meta(*segments, HEAD, dtype=torch.float32),
            softmax_segm_max=meta(*segments, dtype=torch.float32),
            softmax_segm_expsum=meta(*segments, dtype=torch.float32),
        )

    return launches(unified, ("kernel_unified_attention", "reduce_segments"), call)[0]


def latent_launches(large: bool) -> list[Launch]:
    """Both stages that vLLM launches for mla_cases.AMD."""
    case = AMD
    longest, requests = max(case.lens), len(case.lens)
    splits = triton_splits(longest, min(card.compute_units for card in CARDS))  # the limit is far from all
    rows = meta(40000 if large else sum(case.lens) // case.page, case.page, 1, KEY)

    def call() -> None:
        latent.decode_attention_fwd(
            meta(requests, case.heads, KEY),
            rows,
            rows[..., :LATENT],
            meta(requests, case.heads, LATENT),
            meta(requests, case.heads),
            meta(requests, -(-longest // case.page), dtype=torch.int32),
            meta(requests, dtype=torch.int32),
            meta(requests, case.heads, splits, LATENT + 1, dtype=torch.float32),
            splits,
            case.scale,
            case.page,
            k_scale=meta(1, dtype=torch.float32),
            v_scale=meta(1, dtype=torch.float32),
            is_mla=True,
        )

    latent.is_hip_ = True  # as on ROCm
    return launches(latent, ("_fwd_grouped_kernel_stage1", "_fwd_kernel_stage2"), call)


def main(out: Path) -> None:
    """Writes a code object for each target, kernel and size of the cache."""
    out.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        for size, large in KV_CACHE.items():
            for phase in ("prefill", "decode"):
                write(
                    unified_launch(phase == "decode", bool(large)), target, out / f"{target}_{phase}_{size}.co", large
                )
            for stage, launch in enumerate(latent_launches(bool(large)), 1):
                write(launch, target, out / f"{target}_latent{stage}_{size}.co", large)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
