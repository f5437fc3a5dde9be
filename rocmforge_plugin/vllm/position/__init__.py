# SPDX-License-Identifier: Apache-2.0
"""Position embedding: rotary layers, the launch that joins rotary and the KV write, and the GLM classes that use it."""
