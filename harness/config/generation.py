"""Hugging Face's generation parameters: their names, their types, and those that are not for a sampling to set.

Written from `transformers.GenerationConfig` 5.x (a test asserts that the names are exactly its attributes) so that a
config is checked, down to `top_k: ten`, before anything heavy is imported. A parameter that belongs to the harness is
refused with the reason and the place where the choice is made instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from harness.documents import described

Kind = Literal[
    "int", "float", "bool", "text", "ids", "id_list", "texts", "id_lists", "pair", "biases", "mapping", "early"
]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One generation parameter: what kind of value it takes, within which bounds, and why it is refused if it is."""

    kind: Kind
    least: float | None = None
    most: float | None = None
    above: float | None = None
    """An open lower bound."""
    refused: str = ""


_ONE_SEQUENCE = "a turn has one reply, and its tokens are timed one sequence at a time"
_KV_CACHE = "the cache is chosen with kv_cache: reuse | fresh of a model"
_OUTPUTS = "the harness reads ids as they arrive and nothing else"
_ENCODER = "encoder-decoder models are not supported"
_REMOTE = "transformers 5 only does it with code from the Hub (custom_generate), which the harness does not run"
_ASSISTANT = "there is no assistant model"

_COUNT = Parameter("int", least=0)
_POSITIVE = Parameter("int", least=1)
_SHARE = Parameter("float", least=0, most=1)
_PENALTY = Parameter("float", above=0)
_FLOAT = Parameter("float")
_FLAG = Parameter("bool")
_IDS = Parameter("ids")
_MAPPING = Parameter("mapping")

GENERATION_PARAMETERS: Mapping[str, Parameter] = {
    # length
    "max_length": _POSITIVE,
    "max_new_tokens": _POSITIVE,
    "min_length": _COUNT,
    "min_new_tokens": _COUNT,
    "early_stopping": Parameter("early"),
    "max_time": Parameter("float", refused="a turn's time-out is the top-level timeout"),
    "stop_strings": Parameter("texts"),
    # strategy
    "do_sample": _FLAG,
    "num_beams": Parameter("int", least=1, refused=_ONE_SEQUENCE),
    "use_mtp": _FLAG,
    # cache
    "use_cache": Parameter("bool", refused=_KV_CACHE),
    "cache_implementation": Parameter("text"),
    "cache_config": _MAPPING,
    "max_cache_len": _POSITIVE,
    # logits
    "temperature": _PENALTY,
    "top_k": _COUNT,
    "top_p": _SHARE,
    "min_p": _SHARE,
    "top_h": _SHARE,
    "typical_p": _SHARE,
    "epsilon_cutoff": _SHARE,
    "eta_cutoff": _SHARE,
    "repetition_penalty": _PENALTY,
    "encoder_repetition_penalty": Parameter("float", refused=_ENCODER),
    "length_penalty": _FLOAT,
    "no_repeat_ngram_size": _COUNT,
    "bad_words_ids": Parameter("id_lists"),
    "renormalize_logits": _FLAG,
    "forced_bos_token_id": _COUNT,
    "forced_eos_token_id": _IDS,
    "remove_invalid_values": _FLAG,
    "exponential_decay_length_penalty": Parameter("pair"),
    "suppress_tokens": Parameter("id_list"),
    "begin_suppress_tokens": Parameter("id_list"),
    "sequence_bias": Parameter("biases"),
    "token_healing": Parameter("bool", refused="it needs the tokenizer, which generate is not given"),
    "guidance_scale": _FLOAT,
    "watermarking_config": _MAPPING,
    # outputs
    "num_return_sequences": Parameter("int", least=1, refused=_ONE_SEQUENCE),
    "output_attentions": Parameter("bool", refused=_OUTPUTS),
    "output_hidden_states": Parameter("bool", refused=_OUTPUTS),
    "output_scores": Parameter("bool", refused=_OUTPUTS),
    "output_logits": Parameter("bool", refused=_OUTPUTS),
    "return_dict_in_generate": Parameter("bool", refused=_OUTPUTS),
    # special tokens
    "pad_token_id": _COUNT,
    "bos_token_id": _COUNT,
    "eos_token_id": _IDS,
    # encoder-decoder models
    "encoder_no_repeat_ngram_size": Parameter("int", refused=_ENCODER),
    "decoder_start_token_id": Parameter("ids", refused=_ENCODER),
    # speculation
    "is_assistant": Parameter("bool", refused=_ASSISTANT),
    "num_assistant_tokens": _POSITIVE,
    "num_assistant_tokens_schedule": Parameter("text"),
    "assistant_confidence_threshold": _SHARE,
    "prompt_lookup_num_tokens": _POSITIVE,
    "max_matching_ngram_size": _POSITIVE,
    "assistant_early_exit": _POSITIVE,
    "assistant_lookbehind": Parameter("int", refused=_ASSISTANT),
    "target_lookbehind": Parameter("int", refused=_ASSISTANT),
    "assistant_ensemble_weight": Parameter("float", refused=_ASSISTANT),
    "speculation_type": Parameter("text"),
    # performance
    "compile_config": _MAPPING,
    "disable_compile": _FLAG,
    "continuous_batching_config": Parameter("mapping", refused="how turns are batched is the engine's business"),
    "prefill_chunk_size": _POSITIVE,
    # gone from transformers itself
    "low_memory": Parameter("bool", refused=_REMOTE),
    "penalty_alpha": Parameter("float", refused=_REMOTE),
    "dola_layers": Parameter("text", refused=_REMOTE),
    "diversity_penalty": Parameter("float", refused=_REMOTE),
    "num_beam_groups": Parameter("int", refused=_REMOTE),
    "constraints": Parameter("mapping", refused=_REMOTE),
    "force_words_ids": Parameter("id_lists", refused=_REMOTE),
}

SAMPLING_ONLY = (
    "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff",
)  # fmt: skip
"""What decides which id is drawn, and does nothing where none is: without `do_sample`."""


def is_greedy(parameters: Mapping[str, Any]) -> bool:
    """Whether nothing is drawn at random: `do_sample` is False where nobody says otherwise
    (transformers.GenerationConfig), and a draw from the one most likely token is no draw."""
    return not parameters.get("do_sample", False) or parameters.get("top_k") == 1


# Arguments of `generate` that people write beside the parameters, and where the harness has them.
NOT_PARAMETERS: Mapping[str, str] = {
    "seed": "every turn has its own seed, made from the top-level seed",
    "generator": "every turn has its own seed, made from the top-level seed",
    "past_key_values": _KV_CACHE,
    "streamer": "the harness has its own clock there",
    "stopping_criteria": "use stop_strings, eos_token_id or max_new_tokens",
    "logits_processor": "a config can only name generation parameters",
    "assistant_model": _ASSISTANT,
    "timeout": "it stands at the top level, beside sampling",
}

_DEPTH: Mapping[Kind, int] = {"ids": 1, "id_list": 1, "texts": 1, "pair": 1, "id_lists": 2, "biases": 3}
_ALLOWED_ANYWAY = ("num_beams", "num_return_sequences")
"""What is refused but for one, which is what happens anyway, and null, which leaves it unset."""


def refusal(name: str, values: list[Any]) -> str:
    """Why a sampling may not set this parameter to these values; empty if it may."""
    if name in _ALLOWED_ANYWAY and all(value in (1, None) for value in values):
        return ""
    return GENERATION_PARAMETERS[name].refused


def is_axis(name: str, value: Any) -> bool:
    """Whether a list lists several values of this parameter, rather than being one value itself."""
    return isinstance(value, list) and _depth(value) > _DEPTH.get(GENERATION_PARAMETERS[name].kind, 0)


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def checked(name: str, value: Any) -> tuple[Any, str]:
    """(the value as transformers wants it, what is wrong with it – empty if nothing is).

    Whole numbers become floats where a float is meant: transformers refuses `temperature: 1`. None leaves a parameter
    unset (`eos_token_id: null` switches it off) and is always right.
    """
    parameter = GENERATION_PARAMETERS[name]
    if value is None:
        return None, ""
    kind = parameter.kind
    if kind == "float" and _is_number(value):
        value = float(value)
    if not _FITS[kind](value):
        return value, f"should be {_SAID[kind]}, not {described(value)}"
    if kind in ("int", "float"):
        return value, _out_of_bounds(parameter, value)
    return value, ""


def _out_of_bounds(parameter: Parameter, value: float) -> str:
    if not math.isfinite(value):
        return f"should be finite, not {value}"
    if parameter.above is not None and value <= parameter.above:
        return f"should be more than {parameter.above:g}, not {value:g}"
    if parameter.least is not None and value < parameter.least:
        return f"should be at least {parameter.least:g}, not {value:g}"
    if parameter.most is not None and value > parameter.most:
        return f"should be at most {parameter.most:g}, not {value:g}"
    return ""


def _is_filled(value: Any) -> bool:
    """Text that can be found somewhere: an empty stop string would end every reply at once."""
    return isinstance(value, str) and value != ""


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_int(value) or isinstance(value, float)


def _is_id(value: Any) -> bool:
    return _is_int(value) and value >= 0


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_id, value))


_FITS: Mapping[Kind, Callable[[Any], bool]] = {
    "int": _is_int,
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "ids": lambda value: _is_id(value) or _are_ids(value),
    "id_list": _are_ids,
    "texts": lambda value: _is_filled(value) or (isinstance(value, list) and all(map(_is_filled, value))),
    "id_lists": lambda value: isinstance(value, list) and all(map(_are_ids, value)),
    "pair": lambda value: isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)),
    "biases": lambda value: (
        isinstance(value, list)
        and all(isinstance(v, list) and len(v) == 2 and _are_ids(v[0]) and _is_number(v[1]) for v in value)
    ),
    "mapping": lambda value: isinstance(value, dict),
    "early": lambda value: isinstance(value, bool) or value == "never",
}

_SAID: Mapping[Kind, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "text": "text",
    "ids": "a token id, which is 0 or more, or a list of them",
    "id_list": "a list of token ids, which are 0 or more",
    "texts": "text or a list of texts, none of them empty",
    "id_lists": "a list of lists of token ids, which are 0 or more",
    "pair": "a list of a start and a factor",
    "biases": "a list of [[ids], bias] pairs",
    "mapping": "a mapping",
    "early": "true, false or never",
}
