# SPDX-License-Identifier: Apache-2.0
"""Build driver: compiles the kernels for every target and the host module, in parallel, cached by content.

`setup.py` calls :func:`build`; ``python -m rocmforge_build`` calls it for a source checkout.
"""

from .driver import build
from .errors import BuildError

__all__ = ["BuildError", "build"]
