# SPDX-License-Identifier: Apache-2.0
"""vLLM end to end: engines, servers and clients."""
