# SPDX-License-Identifier: Apache-2.0
"""What rocmforge is to vLLM: two attention backends of one name, layers in the place of vLLM's and model classes.

Four rooms, and what they share beside them: `backend` is attention, `mla` latent attention, `encoder` the attention of
vision and audio encoders, `position` what comes between the QKV product and them. The others ask `backend` (which
device this is, what is planned); nothing goes the other way. All that vLLM's serving loads is here. Outside, only what
drives a vLLM of its own imports it: `rocmforge doctor` (cli) and `rocmforge eval` (evaluate). Every touch on vLLM's
internals is listed in docs/vllm_touches.md.
"""

NAME = "ROCMFORGE"  # of the backends, in vLLM's registries
BACKEND_PATH = "rocmforge_plugin.vllm.backend.backend.RocmForgeBackend"
MLA_PATH = "rocmforge_plugin.vllm.mla.backend.RocmForgeMLABackend"
MLA_PREFILL_PATH = "rocmforge_plugin.vllm.mla.prefill.RocmForgeMLAPrefill"
