# SPDX-License-Identifier: Apache-2.0
"""The attention of vision and audio encoders: the layer that vLLM's multimodal models have it in, through rocmforge's
kernels where the user chose them. Text models' encoders are `backend.encoder`.
"""
