# SPDX-License-Identifier: Apache-2.0
"""Multi-head latent attention: a backend of the same name for the layers that keep a latent of their keys and values.

Decodes, and verifications of drafts, attend to the latent itself (`impl`); prompts to keys and values that vLLM makes
of it (`prefill`). Nothing in here imports `position`.
"""
