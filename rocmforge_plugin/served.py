# SPDX-License-Identifier: Apache-2.0
"""What rocmforge serves, as plain data: the one place that the build, the table of kernels, the operations and vLLM's
selection read. Nothing is imported here, so it can be read where there is neither torch nor vLLM.
"""

HEAD_SIZES = (64, 80, 96, 128, 192, 256)
MAX_GROUP = 128  # query heads per KV head

# The kinds of attention there are kernels for: a format of keys and values (kernels/attention/problem/key_format.h), a
# score function (score.h there), and heads as (key dims, value dims). A name is that of a C++ type, in lower case.
PROBLEMS = (
    # format, score, heads
    ("joined", "plain", tuple((size, size) for size in HEAD_SIZES)),
    ("latent", "plain", ((576, 512), (512, 512), (320, 256))),
    ("split", "plain", ((256, 256), (192, 128), (128, 128), (96, 64))),
)
# The op that takes a format's tensors, where it is not paged_attention.
OPS = {"latent": "latent_attention", "split": "varlen_attention"}
PREFILL_ONLY = ("split",)  # formats without decode kernels: their ops have no decode steps

BLOCK_MULTIPLE = 16  # of the keys of a cache block

# torch's names of dtypes, and how kernels' names spell them.
ELEMENTS = {"bfloat16": "bf16", "float16": "f16", "float32": "float"}
DTYPES = {"amd": ("bfloat16", "float16"), "nvidia": ("bfloat16", "float16"), "cpu": ("bfloat16", "float16", "float32")}

AMD_ARCHS = ("gfx90a", "gfx942", "gfx950", "gfx1100", "gfx1151", "gfx1200", "gfx1201")
NVIDIA_ARCHS = ("sm_80", "sm_90")
