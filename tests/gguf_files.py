"""Writes a tiny llama as a GGUF file, as llama.cpp's converter would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as hf

_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "post_attention_layernorm": "ffn_norm", "input_layernorm": "attn_norm",
    "model.layers.": "blk.",
}  # fmt: skip


def write_gguf(folder: Path, path: Path, template: str) -> None:
    """The llama that is saved in a folder, with its tokenizer, in float32."""
    import gguf

    model: Any = hf.AutoModelForCausalLM.from_pretrained(folder)
    config = model.config
    bpe = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges = [one if isinstance(one, str) else " ".join(one) for one in bpe["merges"]]
    tokens = sorted(bpe["vocab"], key=bpe["vocab"].get)
    added = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    special = {one["content"] for one in added}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_chat_template(template)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":  # tied
            weights = _rotating_pairs(name, tensor, config).to(torch.float32).contiguous()
            writer.add_tensor(_named(name), weights.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rotating_pairs(name: str, tensor: torch.Tensor, config: Any) -> torch.Tensor:
    """llama.cpp turns neighbours by an angle, transformers the two halves of a head."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for part, n in heads.items():
        if part in name:
            return tensor.reshape(n, 2, -1, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)
    return tensor


def _named(name: str) -> str:
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name
