# SPDX-License-Identifier: Apache-2.0
"""The build's only exception."""


class BuildError(RuntimeError):
    """The build cannot go on; the message says why in the user's terms."""
