"""The one table of servers: how each is asked for what, and what it cannot be asked for.

They all speak "OpenAI's API", and mean different things by it: what one takes as `top_k` another passes over in silence
and a third refuses. So a parameter is sent only where the table has a field for it, and everything that the server
would otherwise fill from its own defaults, or from the model's generation_config, is sent as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.config.server import Dialect

_OPENAI: Mapping[str, str] = {"temperature": "temperature", "top_p": "top_p", "stop_strings": "stop"}
_ENGINES: Mapping[str, str] = {
    **_OPENAI,
    "top_k": "top_k",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "min_new_tokens": "min_tokens",
}
_NEUTRAL: Mapping[str, Any] = {"temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
"""What does nothing, sent where nothing else is asked for."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """How one server is spoken to."""

    title: str
    fields: Mapping[str, str]
    """Generation parameter under Hugging Face's name → field of the request."""
    max_new_tokens: str = "max_tokens"
    neutral: Mapping[str, Any] = field(default_factory=lambda: _NEUTRAL)
    all_of_top_k: int | None = None
    """What `top_k: 0`, every token, is called; None where there is no top_k."""
    fixed: Mapping[str, Any] | None = None
    """What makes it go on past the end of text, for `length: fixed`; None where nothing does."""
    container: str | None = None
    """The field that takes all of Hugging Face's parameters as one JSON text, where there is such a field."""
    stream_options: Mapping[str, Any] | None = field(default_factory=lambda: {"include_usage": True})
    counts_along: bool = False
    """Whether it counts with every chunk."""
    counts_the_end: bool = False
    """Whether an end of text is one of the tokens it counts, with no text of its own."""
    tells_stops: bool = False
    """Whether it shows if a stop string ended the reply: by a field, or by leaving it in the text."""
    template_kwargs: str | None = None
    """The field that takes arguments of the chat template."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What is always sent."""
    ignored: tuple[str, ...] = ()
    """What it passes over in silence, so that we must not send it."""
    tested: str = "not here: as documented"


_VLLM = Spoken(
    "vLLM",
    _ENGINES,
    all_of_top_k=-1,
    fixed={"ignore_eos": True},
    stream_options={"include_usage": True, "continuous_usage_stats": True},
    counts_along=True,
    counts_the_end=True,
    tells_stops=True,
    template_kwargs="chat_template_kwargs",
    ignored=("any field it does not know",),
)
DIALECTS: Mapping[Dialect, Spoken] = {
    "openai": Spoken("OpenAI's own, and servers not recognised", _OPENAI, max_new_tokens="max_completion_tokens"),
    "vllm": _VLLM,
    "sglang": replace(
        _VLLM,
        title="SGLang",
        ignored=(*_VLLM.ignored, "seed, unless it was started with deterministic inference"),
    ),
    "llamacpp": Spoken(
        "llama.cpp's llama-server",
        {
            **_OPENAI,
            "top_k": "top_k",
            "min_p": "min_p",
            "typical_p": "typical_p",
            "repetition_penalty": "repeat_penalty",
        },
        neutral={**_NEUTRAL, "typical_p": 1.0},
        all_of_top_k=0,
        fixed={"ignore_eos": True},
        template_kwargs="chat_template_kwargs",
        extra={"repeat_last_n": -1},  # its penalty looks back 64 tokens, Hugging Face's at all of them
        ignored=("any field it does not know",),
    ),
    "llama-cpp-python": Spoken(
        "llama-cpp-python's server",
        {**_OPENAI, "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
        all_of_top_k=0,
        stream_options=None,
        ignored=("stream_options: it never counts in a stream",),
    ),
    "ollama": Spoken(
        "Ollama",
        _OPENAI,
        ignored=("top_k, min_p, repeat_penalty: those of the model's Modelfile apply",),
    ),
    "tgi": Spoken(
        "Text Generation Inference",
        _OPENAI,
        neutral={"temperature": 1.0},  # it refuses top_p: 1.0, and needs none
        ignored=("top_k, min_p, repetition_penalty",),
    ),
    "transformers": Spoken(
        "transformers serve",
        {},
        container="generation_config",
        fixed={"eos_token_id": -1},  # an id that no token has
        stream_options=None,  # it always counts, and warns of the field
        counts_the_end=True,
        tells_stops=True,
        template_kwargs="chat_template_kwargs",
        ignored=("temperature without do_sample: it decodes greedily then",),
        tested="for real",
    ),
}
