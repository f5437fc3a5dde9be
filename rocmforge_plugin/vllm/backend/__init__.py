# SPDX-License-Identifier: Apache-2.0
"""The attention backend. Nothing in here imports `position`."""
