# SPDX-License-Identifier: Apache-2.0
"""The environment, the serve driver and the checks: what the Makefile runs."""
