# SPDX-License-Identifier: Apache-2.0
"""Settings for all tests.

ROCMFORGE_TEST_DEVICE  torch device that the kernel tests run on, default ``cpu`` (the real kernel source on the CPU)
ROCMFORGE_EXAMPLES     examples per property, default 60
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "rocmforge",
    deadline=None,  # the first example loads code
    max_examples=int(os.environ.get("ROCMFORGE_EXAMPLES", "60")),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("rocmforge")
