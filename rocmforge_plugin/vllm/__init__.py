# SPDX-License-Identifier: Apache-2.0
"""What rocmforge is to vLLM: an attention backend, a position-embedding layer and model classes.

Every module here but `eligibility` imports vLLM; nothing outside this package does.
"""

NAME = "ROCMFORGE"  # of the backend, in vLLM's registry
