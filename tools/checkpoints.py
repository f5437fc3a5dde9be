#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Make small seeded checkpoints, real in every respect but their size and their random weights.

    python -m tools.checkpoints glm4 build/checkpoints/glm4          # --help lists the kinds

The tokenizer is byte-level (any text, one token a byte) with GLM-4's role tags and a chat template. The same function
serves `make serve` (its default model) and the tests, which ask for the shapes they need.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import shutil
import sys
from typing import Any

import torch

from tools.dense_checkpoints import MODELS as DENSE

SPECIAL = ("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
VISION_SPECIAL = (
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
    "<|video|>",
)
VOCAB = 256 + 8  # bytes, special tokens, padded to a multiple of 8
VISION_VOCAB = VOCAB + 8
EOS = 256
CHAT_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 2048,
    "sliding_window": 0,
    "attention_chunk_size": 0,
    "mtp_layers": 0,
}
# Heads of the released models' size, so that their M-RoPE sections fit; heads * head_dim must be hidden_size.
VISION_SHAPE = SHAPE | {"head_dim": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
VISION = ("glm4v", "glm4v_moe", "glm_ocr")
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 0.7,
    "mscale_all_dim": 1.0,
}
SIGMOID = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"}  # read by vLLM, and in released files
# Latent attention, in the released sizes but for q_lora_rank: Transformers' class, q_lora_rank, kv_lora_rank,
# qk_nope_head_dim, qk_rope_head_dim, v_head_dim; and what else the kind has.
LATENT: dict[str, tuple[str, tuple[int | None, ...], dict[str, Any]]] = {
    "glm4_moe_lite": ("Glm4MoeLite", (64, 512, 192, 64, 256), {}),
    "deepseek_v2": ("DeepseekV2", (None, 512, 128, 64, 128), {"n_group": 1, "topk_group": 1}),  # DeepSeek-V2-Lite
    "deepseek_v3": (
        "DeepseekV3",
        (64, 512, 128, 64, 128),
        {"n_group": 2, "topk_group": 1, "rope_parameters": YARN, **SIGMOID},
    ),
    "kimi_k2": ("DeepseekV3", (64, 512, 128, 64, 128), {"n_group": 1, "topk_group": 1, **SIGMOID}),
    "mistral4": ("DeepseekV3", (64, 256, 64, 64, 128), {"n_group": 1, "topk_group": 1, **SIGMOID}),
}
# Wide enough that attention decides the next token, so that a fault in it changes the text.
SPREAD = 0.12
MAKER = "rocmforge seeded checkpoint, format 3"


def save_tokenizer(folder: pathlib.Path, special: tuple[str, ...] = SPECIAL) -> None:
    """Byte-level tokenizer with special tokens, numbered from 256 on, and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(special))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def _transformers_model(kind: str, shape: dict[str, Any]) -> Any:
    """A model of one of the architectures that transformers implements."""
    import transformers as hf

    common = dict(shape, vocab_size=VOCAB, eos_token_id=[EOS], pad_token_id=EOS, initializer_range=SPREAD)
    window, chunk = common.pop("sliding_window"), common.pop("attention_chunk_size")
    drafting = common.pop("mtp_layers")
    if kind == "glm4":
        return hf.Glm4ForCausalLM(hf.Glm4Config(**common))
    if kind == "glm":
        return hf.GlmForCausalLM(hf.GlmConfig(**common))
    if kind == "llama":
        return hf.LlamaForCausalLM(hf.LlamaConfig(**common, bos_token_id=EOS))
    if kind == "mistral":
        return hf.MistralForCausalLM(hf.MistralConfig(**common, bos_token_id=EOS, sliding_window=window or None))
    if kind == "llama4":  # dense layers only, every second one with chunked attention and rotary
        return hf.Llama4ForCausalLM(
            hf.Llama4TextConfig(
                **common,
                bos_token_id=EOS,
                intermediate_size_mlp=shape["intermediate_size"],
                moe_layers=[],
                interleave_moe_layer_step=shape["num_hidden_layers"] + 1,
                no_rope_layer_interval=2,
                attention_chunk_size=chunk or None,
            )
        )
    if kind in DENSE:
        return DENSE[kind](common, window)
    if kind in VISION:
        return _vision_model(kind, common)
    if kind in LATENT:
        return _latent_model(kind, common, drafting)
    experts = {
        "moe_intermediate_size": 128,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "first_k_dense_replace": 1,
        "use_qk_norm": True,
        "attention_bias": True,
        "num_mtp_layers": 0,
    }
    return hf.Glm4MoeForCausalLM(hf.Glm4MoeConfig(**{**common, **experts}))


def _latent_model(kind: str, common: dict[str, Any], drafting: int) -> Any:
    """A model with latent attention; a drafter's layers are made as further layers of its own, see `_split_drafter`."""
    import transformers as hf

    name, ranks, rest = LATENT[kind]
    sizes = dict(
        zip(("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), ranks, strict=True)
    )
    sizes |= {"moe_intermediate_size": 128, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1}
    del common["head_dim"]
    common["num_key_value_heads"] = common["num_attention_heads"]
    common["num_hidden_layers"] += drafting
    if name == "DeepseekV3":
        rest = rest | {"num_mtp_layers": 0}
    config = getattr(hf, f"{name}Config")(**common, **sizes, **rest)
    config.first_k_dense_replace = 1  # in the released config.json, and read by vLLM
    return getattr(hf, f"{name}ForCausalLM")(config)


def _split_drafter(folder: pathlib.Path, layers: int) -> None:
    """Makes the last layer of a checkpoint the drafter's, with the matrices that such a layer has besides."""
    from safetensors.torch import load_file, save_file

    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    prefix, hidden = f"model.layers.{layers}.", config["hidden_size"]
    drafter = {
        "enorm.weight": torch.ones(hidden),
        "hnorm.weight": torch.ones(hidden),
        "eh_proj.weight": torch.randn(hidden, 2 * hidden) * SPREAD,
        "embed_tokens.weight": weights["model.embed_tokens.weight"],
        "shared_head.norm.weight": weights["model.norm.weight"],
        "shared_head.head.weight": weights["lm_head.weight"],
    }
    weights |= {prefix + name: value.to(torch.bfloat16).clone() for name, value in drafter.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    edits = {"num_hidden_layers": layers, "num_nextn_predict_layers": 1}
    if "mlp_layer_types" in config:
        edits["mlp_layer_types"] = config["mlp_layer_types"][:layers]
    _edit_config(folder, **edits)


def _edit_config(folder: pathlib.Path, **edits: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edits, indent=1))


def _vision_model(kind: str, common: dict[str, Any]) -> Any:
    """GLM-4.1V, GLM-4.5V or GLM-OCR: M-RoPE with the released sections, and two layers of vision encoder."""
    import transformers as hf

    name = {"glm4v": "Glm4v", "glm4v_moe": "Glm4vMoe", "glm_ocr": "GlmOcr"}[kind]
    full = kind == "glm_ocr"  # rotates all of a head, the others one half
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0 if full else 0.5,
        "mrope_section": [16, 24, 24] if full else [8, 12, 12],
    }
    text = common | {"rope_parameters": rope, "vocab_size": VISION_VOCAB}
    if kind == "glm4v_moe":
        text |= {
            "moe_intermediate_size": 128,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "use_qk_norm": False,
            "attention_bias": True,
        }
    vision = {
        "depth": 2,
        "hidden_size": 128,
        "num_heads": 2,
        "image_size": 112,
        "patch_size": 14,
        "out_hidden_size": common["hidden_size"],
        "intermediate_size": 256,
        "initializer_range": SPREAD,
    }
    ids = {
        f"{what}_token_id": 256 + len(SPECIAL) + VISION_SPECIAL.index(f"<|{token}|>")
        for what, token in (
            ("image", "image"),
            ("video", "video"),
            ("image_start", "begin_of_image"),
            ("image_end", "end_of_image"),
            ("video_start", "begin_of_video"),
            ("video_end", "end_of_video"),
        )
    }
    config = getattr(hf, f"{name}Config")(text_config=text, vision_config=vision, **ids)
    model = getattr(hf, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for weight, parameter in model.named_parameters():
            # GLM-OCR's encoder norms its heads: with weights of 1 its attention is all but uniform, and a rotary fault
            # moves the text's log probabilities by 0.003 only.
            if weight.startswith("model.visual.") and weight.endswith(("q_norm.weight", "k_norm.weight")):
                parameter.fill_(4.0)
    return model


def _save_processor(folder: pathlib.Path) -> None:
    """The files that tell how images are cut into patches: multiples of 28 pixels stay the size they are."""
    settings = {
        "processor_class": "Glm4vProcessor",
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": 56 * 56, "longest_edge": 2 * 112 * 112},
    }
    for name, kind in (("preprocessor", "image"), ("video_preprocessor", "video")):
        settings = settings | {f"{kind}_processor_type": f"Glm4v{kind.capitalize()}Processor"}
        (folder / f"{name}_config.json").write_text(json.dumps(settings, indent=1))


def _chatglm(shape: dict[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and config of ChatGLM2/3's own layout, which no transformers class writes."""
    hidden, inner, layers = shape["hidden_size"], shape["intermediate_size"], shape["num_hidden_layers"]
    heads, kv_heads, head = shape["num_attention_heads"], shape["num_key_value_heads"], shape["head_dim"]

    def matrix(*size: int) -> torch.Tensor:
        return torch.randn(*size) * SPREAD

    def norm() -> torch.Tensor:
        return 1 + torch.randn(hidden) * 0.05

    weights = {
        "embedding.word_embeddings.weight": matrix(VOCAB, hidden),
        "output_layer.weight": matrix(VOCAB, hidden),
        "encoder.final_layernorm.weight": norm(),
        "rotary_pos_emb.inv_freq": torch.ones(head // 4),
    }
    for index in range(layers):
        layer = f"encoder.layers.{index}."
        weights |= {
            layer + "input_layernorm.weight": norm(),
            layer + "post_attention_layernorm.weight": norm(),
            layer + "self_attention.query_key_value.weight": matrix((heads + 2 * kv_heads) * head, hidden),
            layer + "self_attention.query_key_value.bias": matrix((heads + 2 * kv_heads) * head),
            layer + "self_attention.dense.weight": matrix(hidden, heads * head),
            layer + "mlp.dense_h_to_4h.weight": matrix(2 * inner, hidden),
            layer + "mlp.dense_4h_to_h.weight": matrix(hidden, inner),
        }
    config = {
        "architectures": ["ChatGLMModel"],
        "model_type": "chatglm",
        "num_layers": layers,
        "padded_vocab_size": VOCAB,
        "hidden_size": hidden,
        "ffn_hidden_size": inner,
        "kv_channels": head,
        "num_attention_heads": heads,
        "seq_length": shape["max_position_embeddings"],
        "layernorm_epsilon": 1e-5,
        "rmsnorm": True,
        "post_layer_norm": True,
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "multi_query_attention": True,
        "apply_residual_connection_post_layernorm": False,
        "multi_query_group_num": kv_heads,
        "original_rope": True,
        "rope_ratio": 1.0,
        "fp32_residual_connection": False,
        "dtype": "bfloat16",
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "tie_word_embeddings": False,
    }
    return {f"transformer.{name}": value for name, value in weights.items()}, config


def make(kind: str, folder: pathlib.Path, *, seed: int = 0, **shape: int) -> pathlib.Path:
    """Make a bf16 checkpoint unless `folder` already holds this very one.

    Args:
        kind: one of KINDS.
        folder: where it goes; replaced when it holds another checkpoint of this maker.
        seed: of the weights.
        shape: replaces entries of SHAPE, for example `num_attention_heads=8`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is unknown; one of: {', '.join(KINDS)}")
    if unknown := set(shape) - set(SHAPE):
        raise ValueError(f"shape settings {sorted(unknown)} are unknown; there are: {', '.join(SHAPE)}")
    full = (VISION_SHAPE if kind in VISION else SHAPE) | shape
    recipe = json.dumps({"maker": MAKER, "kind": kind, "seed": seed, **full}, sort_keys=True)
    stamp = folder / "recipe.json"
    if folder.exists():
        if stamp.exists() and stamp.read_text() == recipe:
            return folder
        if any(folder.iterdir()) and not stamp.exists():
            raise ValueError(f"{folder} holds something else; name an empty folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    generator_state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        if kind == "chatglm":
            from safetensors.torch import save_file

            weights, config = _chatglm(full)
            save_file(
                {name: value.to(torch.bfloat16).contiguous() for name, value in weights.items()},
                folder / "model.safetensors",
                metadata={"format": "pt"},
            )
            (folder / "config.json").write_text(json.dumps(config, indent=1))
        else:
            model = _transformers_model(kind, full)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "norm" in name:
                        parameter.add_(torch.randn_like(parameter) * 0.05)
            model.to(torch.bfloat16).save_pretrained(folder)
            if full["mtp_layers"]:
                _split_drafter(folder, full["num_hidden_layers"])
            if kind == "kimi_k2":  # whose own name Transformers has no class for
                _edit_config(folder, model_type=kind)
    finally:
        torch.set_rng_state(generator_state)
    save_tokenizer(folder, SPECIAL + VISION_SPECIAL if kind in VISION else SPECIAL)
    if kind in VISION:
        _save_processor(folder)
    stamp.write_text(recipe)
    return folder


KINDS = ("glm4", "glm", "glm4_moe", "chatglm", "llama", "llama4", "mistral", *DENSE, *LATENT, *VISION)


def main() -> None:
    """Command line: KIND FOLDER [--seed N] [--shape name=value ...]."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shape", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    shape = {name: int(value) for name, value in (item.split("=") for item in given.shape)}
    print(make(given.kind, given.folder, seed=given.seed, **shape), file=sys.stderr)


if __name__ == "__main__":
    main()
