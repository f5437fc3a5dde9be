# SPDX-License-Identifier: Apache-2.0
"""The kernels' property tests, as they stand in tests/kernels, on emulated AMD GPUs: any strides, lengths and pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings

from rocmforge_plugin import _C
from rocmforge_plugin.served import HEAD_SIZES
from tests.kernels import test_attention as attention
from tests.kernels import test_causal_mask as mask
from tests.kernels import test_kv_write as kv_write
from tests.kernels import test_latent_attention as latent_attention
from tests.kernels import test_latent_kv_write as latent_kv_write
from tests.kernels import test_rotary as rotary
from tests.kernels import test_rotary_forms as forms
from tests.kernels import test_rotary_kv_write as rotary_kv_write
from tests.kernels import test_rotary_latent_kv_write as rotary_latent_kv_write
from tests.kernels.latent_support import DIMS

from .conftest import ALL, TARGETS

EXAMPLES = 12 if ALL else 3
PROPERTIES: list[tuple[Callable[..., None], dict[str, Any]]] = [
    (mask.test_masks_exactly_the_future, {}),
    (kv_write.test_writes_slots_and_nothing_else, {}),
    (latent_kv_write.test_writes_rows_and_nothing_else, {}),
    (rotary.test_rotates_in_place, {}),
    (forms.test_sections, {}),
    (rotary_kv_write.test_norm_rotation_and_write, {}),
    (rotary_latent_kv_write.test_rotates_in_place_and_writes, {}),
    *(
        (test, {"head_size": size})
        for test in (attention.test_mixed_batches, attention.test_decode)
        for size in (HEAD_SIZES if ALL else (128,))
    ),
    *(
        (test, {"dims": dims})
        for test in (latent_attention.test_mixed_batches, latent_attention.test_decode)
        for dims in (DIMS if ALL else DIMS[:1])
    ),
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("test", "arguments"),
    PROPERTIES,
    ids=["-".join([test.__module__[19:], test.__name__[5:], *map(str, more.values())]) for test, more in PROPERTIES],
)
def test_property(
    emulated: Callable[..., _C.Device],
    monkeypatch: pytest.MonkeyPatch,
    target: str,
    test: Any,
    arguments: dict[str, Any],
) -> None:
    emulated(target, order=11, quantum=211)
    for module in (attention, latent_attention):
        monkeypatch.setattr(module, "TYPES", attention.TYPES[:2])  # float32 is the CPU target's alone
    # Few examples, and the same ones each time: an example takes seconds here.
    few = settings(test._hypothesis_internal_use_settings, max_examples=EXAMPLES, derandomize=True, database=None)
    monkeypatch.setattr(test, "_hypothesis_internal_use_settings", few)
    test(**arguments)
