"""Tiny models of many architectures, made on the spot and saved as `save_pretrained` saves any model.

Their weights are random, so what they say means nothing; `initializer_range` is large, or their greedy replies would
collapse to one token. All share a small byte-level tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

torch.set_num_threads(1)  # threads cost such small models more than they give
hf.utils.logging.disable_progress_bar()

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/...') }}{% endif %}"
    "[{{ message.role }}] {{ message.content }}{% endfor %}[assistant]"
)
DATED = "Today is {{ strftime_now('%d %B %Y') }}; {{ date_string }}.\n" + CHATML
THINKING = CHATML.replace(
    "assistant\n{% endif %}", "assistant\n{% if enable_thinking %}<think>\n{% endif %}{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|bos|>"]
TEXT = """Hello! I am glad to talk about physics. What is Newtonian mechanics? It describes the motion of bodies.
How about Lagrangian mechanics? It describes motion by energies instead of forces. Bob is a professor in Physics.
Alice: What would you like to know? Bob: A rainbow forms when sunlight bends in raindrops. <think> </think> system user
assistant: the sky is blue because air scatters short wavelengths, 0 1 2 3 4 5 6 7 8 9 and who are you, again?
"""
SIZES: dict[str, Any] = {
    "vocab_size": 384,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.5,
    "bos_token_id": 3,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def tokenizer(template: str | None = CHATML) -> hf.PreTrainedTokenizerFast:
    """Byte-level BPE over a few sentences: every text round-trips, a newline has an id of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZES["vocab_size"],
        special_tokens=SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([TEXT], trainer)
    made = hf.PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|bos|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = template
    return made


def _sized(**changes: Any) -> dict[str, Any]:
    return {**SIZES, **changes}


CONFIGS: dict[str, Callable[[], hf.PreTrainedConfig]] = {
    "llama": lambda: hf.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen3": lambda: hf.Qwen3Config(**SIZES, head_dim=8),
    "falcon": lambda: hf.FalconConfig(**SIZES, new_decoder_architecture=False, multi_query=True, bias=False),
    "falcon_new": lambda: hf.FalconConfig(**SIZES, new_decoder_architecture=True, num_kv_heads=2, bias=False),
    "falcon_alibi": lambda: hf.FalconConfig(**SIZES, alibi=True, multi_query=False, bias=True, parallel_attn=False),
    "gemma3": lambda: hf.Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=24, sliding_window_pattern=2),
    "phi3": lambda: hf.Phi3Config(**SIZES),
    "mistral": lambda: hf.MistralConfig(**SIZES, sliding_window=24),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**SIZES),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=384, n_embd=32, n_layer=2, n_head=4, n_positions=512, initializer_range=0.5,
        bos_token_id=3, eos_token_id=2,
    ),
    "mixtral": lambda: hf.MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2),
    "mamba2": lambda: hf.Mamba2Config(
        vocab_size=384, hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=4, head_dim=16, n_groups=1,
        chunk_size=16, initializer_range=0.5, bos_token_id=3, eos_token_id=2, pad_token_id=0,
    ),
    "falcon_h1": lambda: hf.FalconH1Config(
        **SIZES, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1,
        mamba_chunk_size=16,
    ),
    "lfm2": lambda: hf.Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]),
    "qwen3_next": lambda: hf.Qwen3NextConfig(
        **SIZES, head_dim=8, linear_key_head_dim=8, linear_value_head_dim=8, linear_num_key_heads=2,
        linear_num_value_heads=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, layer_types=["linear_attention", "full_attention"],
    ),
}  # fmt: skip
ARCHITECTURES = tuple(CONFIGS)


def save(
    folder: Path,
    architecture: str = "llama",
    *,
    template: str | None = CHATML,
    generation: dict[str, Any] | None = None,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Save a tiny model and its tokenizer in `folder`; `changes` are put on its config."""
    torch.manual_seed(seed)
    config = CONFIGS[architecture]()
    for name, value in changes.items():
        setattr(config, name, value)
    model = hf.AutoModelForCausalLM.from_config(config)
    if generation is not None:
        model.generation_config = hf.GenerationConfig(**generation)
    model.save_pretrained(folder)
    tokenizer(template).save_pretrained(folder)
    return folder


def save_t5(folder: Path) -> Path:
    """An encoder-decoder model, which cannot be used here."""
    config = hf.T5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    hf.T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
