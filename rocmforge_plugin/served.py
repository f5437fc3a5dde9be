# SPDX-License-Identifier: Apache-2.0
"""What rocmforge serves, as plain data: the one place that the build, the table of kernels, the operations and vLLM's
selection read. Nothing is imported here, so it can be read where there is neither torch nor vLLM.
"""

HEAD_SIZES = (64, 80, 96, 128, 192, 256, 512)  # with kernels of their own
NARROW_STEP, LEAST_HEAD = 8, 32  # of other heads, which run in kernels for longer ones: their multiple, the shortest
MAX_GROUP = 128  # query heads per KV head


def _alike(*sizes: int) -> tuple[tuple[int, int], ...]:
    return tuple((size, size) for size in sizes)


# The kinds of attention there are kernels for: a format of keys and values (kernels/attention/problem/key_format.h), a
# score function (score.h there), and heads as (key dims, value dims). A name is that of a C++ type, in lower case and
# with its words apart.
PROBLEMS = (
    # format, score, heads
    ("joined", "plain", _alike(*HEAD_SIZES)),
    ("narrow", "plain", _alike(128, 256)),
    ("narrow", "capped", _alike(128, 256)),
    ("narrow", "biased", _alike(64, 128)),
    ("narrow", "rooted", _alike(128)),
    ("latent", "plain", ((576, 512), (512, 512), (320, 256))),
    ("split", "plain", ((256, 256), (192, 128), (128, 128), (96, 64))),
    ("narrow_split", "plain", _alike(64, 80, 96, 128, 256)),
)
# Those with masks that the plan lists token by token (mask.h there) instead of windows.
LISTED_PROBLEMS = (
    ("joined", "plain", _alike(512)),
    ("narrow", "plain", _alike(128, 256)),
    ("narrow", "capped", _alike(256)),
)
NARROW = {"joined": "narrow", "split": "narrow_split"}  # the format for heads that a format's kernels are too long for
# The masks that a problem can have, and whether the plan lists them.
MASKS = {"windowed": False, "ranges": True, "clamped_ranges": True}
# The op that takes a format's tensors, where it is not paged_attention.
OPS = {"latent": "latent_attention", "split": "varlen_attention"}
PREFILL_ONLY = ("split", "narrow_split")  # formats without decode kernels: their ops have no decode steps

BLOCK_MULTIPLE = 16  # of the keys of a cache block

# torch's names of dtypes, and how kernels' names spell them.
ELEMENTS = {"bfloat16": "bf16", "float16": "f16", "float32": "float"}
DTYPES = {"amd": ("bfloat16", "float16"), "nvidia": ("bfloat16", "float16"), "cpu": ("bfloat16", "float16", "float32")}

AMD_ARCHS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1200", "gfx1201")
NVIDIA_ARCHS = ("sm_80", "sm_90")
