# SPDX-License-Identifier: Apache-2.0
HANG = 3600  # seconds after which a process of a test is taken to hang; no test asks how fast one is
