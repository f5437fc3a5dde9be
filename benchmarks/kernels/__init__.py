# SPDX-License-Identifier: Apache-2.0
"""The kernels against their peers on one GPU, and on the CPU's threads."""
