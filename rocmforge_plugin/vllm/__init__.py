# SPDX-License-Identifier: Apache-2.0
"""What rocmforge is to vLLM: an attention backend, a position-embedding layer and model classes.

Two rooms, and what they share beside them: `backend` is attention, `position` what comes between the QKV product and
it. `position` asks `backend` which device this is; nothing goes the other way. All that vLLM's serving loads is here.
Outside, only what drives a vLLM of its own imports it: `rocmforge doctor` (cli) and `rocmforge eval` (evaluate). Every
touch on vLLM's internals is listed in docs/vllm_touches.md.
"""

NAME = "ROCMFORGE"  # of the backend, in vLLM's registry
