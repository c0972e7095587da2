"""A tokenizer for models that have none at hand: a shape, or a config.json by itself.

A prompt is read byte by byte, so any text has ids, and its number of ids is known without running anything. The rest
of the vocabulary is one rare character for each id: whatever a model with random weights says can be shown, and reads
back as the very same ids, so that the next turn finds them in its cache.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
"""How tokenizers writes the bytes that a text falls back to."""
_TURN, _END = "<|im_start|>", "<|im_end|>"
_FIRST, _SURROGATES, _LAST = 0x3400, range(0xD800, 0xE000), 0x110000
"""Characters that no prompt is likely to hold and that are no white space: ideographs and what comes after them."""
LEAST = len(_BYTES) + 16
"""Ids a vocabulary needs: the bytes, and room for special ones."""


def synthetic_tokenizer(config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer for a model of this config: as many ids as its vocabulary, special ones where the config has them.

    The same config has the same tokenizer everywhere. Raises ValueError where the vocabulary is smaller than `LEAST`.
    """
    text = config.get_text_config(decoder=True)
    size = int(text.vocab_size)
    if size < LEAST:
        raise ValueError(f"a synthetic tokenizer needs a vocabulary of {LEAST} ids, and there are {size}")
    special = _special_tokens(text, size)
    free = iter(sorted(set(range(size)) - set(special)))
    words = [token for token in (_TURN, _END) if token not in special.values()]
    rare = (chr(code) for code in range(_FIRST, _LAST) if code not in _SURROGATES)
    vocabulary = {token: number for number, token in special.items()}
    vocabulary.update(zip((*words, *_BYTES), free, strict=False))
    vocabulary.update(zip(rare, free, strict=False))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True))
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (*special.values(), *words)]
    )
    named: dict[str, Any] = {
        f"{name}_token": special[number]
        for name in ("bos", "pad")
        if (number := getattr(text, f"{name}_token_id")) in special
    }
    fast: Any = PreTrainedTokenizerFast  # its constructor has no types
    tokenizer: PreTrainedTokenizerBase = fast(tokenizer_object=made, eos_token=_END, **named)
    tokenizer.chat_template = CHATML
    return tokenizer


def _special_tokens(config: PreTrainedConfig, size: int) -> dict[int, str]:
    """Id → token for what the config says; an id that serves several purposes has the name of the first."""
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    names = [_END, *(f"<|end {number}|>" for number in range(1, len(ends))), "<|bos|>", "<|pad|>"]
    special: dict[int, str] = {}
    for number, token in zip((*ends, config.bos_token_id, config.pad_token_id), names, strict=True):
        if number is not None and 0 <= number < size:
            special.setdefault(number, token)
    return special
