# SPDX-License-Identifier: Apache-2.0
"""Executes the machine code of AMD GPUs on the CPU, checks what it does, and counts; see README.md beside this file."""
