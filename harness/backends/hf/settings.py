"""What generation really runs with: the model's own generation_config, our sampling and the length lane, merged.

`generate` merges silently: what the caller leaves out comes from the model, and what the model leaves out from
transformers. Here the merge is made first and complete, told in warnings, and what is told is what is used – the
loaded model's own generation_config is emptied, because generate would fill every None from it (an `eos_token_id: None`
among them, which the fixed lane needs).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from transformers import GenerationConfig

from harness.backends.limits import Limits
from harness.backends.seam import EffectiveSettings
from harness.config.generation import SAMPLING_ONLY
from harness.errors import UsageError
from harness.records import Length

BEAMS_ONLY = ("early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty")
LENGTHS = ("max_new_tokens", "max_length")
ENDS = ("eos_token_id", "stop_strings", "forced_eos_token_id", "exponential_decay_length_penalty")
"""What can end or hasten the end of a reply; off in the fixed lane."""
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
NEUTRAL = {
    "temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0, "encoder_repetition_penalty": 1.0,
    "num_beams": 1, "num_return_sequences": 1, "use_cache": True, "guidance_scale": 1.0,
}  # fmt: skip
"""Values that do nothing (besides False and 0)."""
HF_NEW_TOKENS = 20  # GenerationConfig._get_default_generation_params()["max_length"], counted without the prompt
HF_TOP_K = 50  # the same table
REFUSED = {
    "num_beams": "beams have no ids until the end, so there is nothing to time",
    "num_return_sequences": "a turn has one reply",
    "max_time": "it ends replies unseen; set timeout instead",
}
SPECULATION = ("prompt_lookup_num_tokens", "assistant_early_exit", "use_mtp")
"""What makes generate guess several ids ahead and check them in one forward."""
_OWN_CACHE = "the engine makes the cache itself"
_NOT_IN_OUR_LOOP = {
    **dict.fromkeys(SPECULATION, "it gives one id per forward"),
    "guidance_scale": "it runs the model once per id, and this wants a second time",
    "use_cache": "it has no way without a cache",
    "cache_implementation": _OWN_CACHE,
    "cache_config": _OWN_CACHE,
    "max_cache_len": _OWN_CACHE,
    "prefill_chunk_size": "it prefills in one piece",
    "compile_config": "what it compiles, and how, is its own business",
    "disable_compile": "what it compiles, and how, is its own business",
}
REFUSED_BY_ENGINE: Mapping[str, Mapping[str, str]] = dict.fromkeys(("decode", "compiled", "batched"), _NOT_IN_OUR_LOOP)
"""What generate can do and an engine of ours cannot, with the reason."""
_Config: Any = GenerationConfig  # its constructor has no types
META = ("transformers_version", "_from_model_config", "_commit_hash", "_original_object_hash")


@dataclass(frozen=True, slots=True)
class Settled:
    """A setting after merging, ready for use."""

    effective: EffectiveSettings
    config: GenerationConfig
    """Complete but for max_length, which is set per turn."""
    eos_ids: frozenset[int]
    stop_strings: tuple[str, ...]
    limits: Limits
    length: Length


def settle(
    sampling: Mapping[str, Any],
    length: Length,
    *,
    engine: str = "generate",
    own: Mapping[str, Any],
    stop_ids: tuple[int, ...],
    tokenizer_eos: int | None,
    context_tokens: int | None,
) -> Settled:
    """Merge a sampling with a model's `own` generation parameters (see `own_parameters`).

    `stop_ids` are the chat format's, added to the model's in the natural lane; what the `engine` cannot do is refused,
    and left out where the model itself asks for it. Raises UsageError for a parameter that
    does not exist, cannot be used here, or has a value that transformers refuses.
    """
    given = {name: value for name, value in sampling.items() if value is not None}
    _refuse(given, sampling, length, engine)
    warnings: list[str] = []
    merged = {name: value for name, value in own.items() if name not in sampling}  # null unsets what the model sets
    for name, why in {**REFUSED, **REFUSED_BY_ENGINE.get(engine, {})}.items():
        if _asks(name, merged.pop(name, None)):
            warnings.append(f"{name}={own[name]} of the model's generation_config is left out: {why}")
    merged.update(given)
    _settle_length(merged, given, own, warnings)
    if length == "fixed":
        merged.update(dict.fromkeys(ENDS), min_new_tokens=merged["max_new_tokens"])
    else:
        _settle_ends(merged, stop_ids, None if "eos_token_id" in sampling else tokenizer_eos, warnings)
    warnings += _silent(merged, given, own)
    if context_tokens is not None and (merged.get("max_new_tokens") or 0) >= context_tokens:
        warnings.append(
            f"max_new_tokens={merged['max_new_tokens']} is the model's whole context or more: replies end at "
            f"{context_tokens} tokens, prompt included"
        )
    if given.get("cache_implementation") is not None:
        warnings.append("with cache_implementation, generate makes its own cache: kv_cache: reuse has no effect")
    if any(_asks(name, given.get(name)) for name in SPECULATION):
        warnings.append("with speculation, every turn prefills its whole prompt: kv_cache: reuse has no effect")
    if context_tokens is not None and (merged.get("max_length") or 0) > context_tokens:
        warnings.append(
            f"max_length={merged['max_length']} is beyond the model's context: replies end at {context_tokens}"
        )
    if merged.get("do_sample"):
        if merged.setdefault("top_k", HF_TOP_K) == 1:
            warnings += [
                f"{name}={given[name]} has no effect: top_k=1"
                for name in SAMPLING_ONLY
                if name in given and name != "top_k"
            ]
    else:
        warnings += [f"{name}={given[name]} has no effect: do_sample=false" for name in SAMPLING_ONLY if name in given]
        merged = {name: value for name, value in merged.items() if name not in SAMPLING_ONLY}
    warnings += [f"{name}={given[name]} has no effect: there are no beams" for name in BEAMS_ONLY if name in given]
    merged = {"do_sample": False, **{name: value for name, value in merged.items() if name not in BEAMS_ONLY}}
    effective = {name: value for name, value in merged.items() if value is not None}
    stop_strings = effective.get("stop_strings", ())
    return Settled(
        EffectiveSettings(dict(sorted(effective.items())), tuple(warnings)),
        _config(effective),
        frozenset(_ids(effective.get("eos_token_id"))),
        (stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings),
        Limits.of(effective, context_tokens),
        length,
    )


def own_parameters(config: GenerationConfig) -> dict[str, Any]:
    """What a model's generation_config sets, as a plain dict without its bookkeeping."""
    values = {name: value for name, value in config.to_dict().items() if value is not None and name not in META}
    # The harness chooses the cache (kv_cache). Checkpoints say use_cache: false left over from their training, and a
    # model that computes every prefix anew is not what anybody means to measure.
    values.pop("use_cache", None)
    if values.get("cache_implementation") == "hybrid":
        del values["cache_implementation"]  # as generate does: its dynamic cache knows sliding windows by itself
    return values


def speculates(config: GenerationConfig) -> bool:
    """Whether generate guesses ids ahead with such settings, and several may arrive at once."""
    return any(_asks(name, getattr(config, name, None)) for name in SPECULATION)


def _asks(name: str, value: Any) -> bool:
    """Whether this value of a parameter asks for anything."""
    return value is not None and value != NEUTRAL.get(name, False)


def _refuse(given: Mapping[str, Any], sampling: Mapping[str, Any], length: Length, engine: str) -> None:
    known = [name for name in _Config().to_dict() if name not in META]
    for name in sampling:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else "see transformers.GenerationConfig"
            raise UsageError(f"sampling.{name}", "is no generation parameter", remedy)
    for name, why in REFUSED.items():
        if _asks(name, given.get(name)):
            raise UsageError(f"sampling.{name}", f"cannot be used: {why}")
    for name, why in REFUSED_BY_ENGINE.get(engine, {}).items():
        if _asks(name, given.get(name)):
            raise UsageError(f"sampling.{name}", f"cannot be used with engine: {engine}: {why}", "engine: generate can")
    if given.get("do_sample") and given.get("temperature", 1.0) <= 0:
        raise UsageError(
            "sampling.temperature", "must be above 0 with do_sample", "for greedy replies: do_sample: false"
        )
    if length == "fixed" and "max_new_tokens" not in given:
        raise UsageError("length: fixed", "needs max_new_tokens", "set sampling.max_new_tokens")


def _settle_length(
    merged: dict[str, Any], given: Mapping[str, Any], own: Mapping[str, Any], warnings: list[str]
) -> None:
    """Leave one of max_new_tokens and max_length in `merged`."""
    if "max_new_tokens" in given and "max_length" in given:
        warnings.append(f"max_length={given['max_length']} has no effect: max_new_tokens wins over it")
    for name in LENGTHS:
        if name in merged and name not in given and any(other in given for other in LENGTHS):
            warnings.append(f"{name}={own[name]} of the model's generation_config is left out: you set the length")
            del merged[name]
    if "max_new_tokens" in merged:
        merged.pop("max_length", None)
    elif "max_length" not in merged:
        merged["max_new_tokens"] = HF_NEW_TOKENS
        warnings.append(
            f"max_new_tokens={HF_NEW_TOKENS} is transformers' default: neither max_new_tokens nor max_length is set"
        )


def _settle_ends(
    merged: dict[str, Any], stop_ids: tuple[int, ...], tokenizer_eos: int | None, warnings: list[str]
) -> None:
    eos = _ids(merged.get("eos_token_id"))
    if not eos and tokenizer_eos is not None:
        eos = [tokenizer_eos]
        warnings.append(
            f"eos_token_id={tokenizer_eos} comes from the tokenizer: the model's generation_config has none"
        )
    elif tokenizer_eos is not None and tokenizer_eos not in eos:
        warnings.append(f"the tokenizer's end of text ({tokenizer_eos}) does not end a reply: eos_token_id is {eos}")
    eos += [one for one in stop_ids if one not in eos]
    merged["eos_token_id"] = eos or None


def _silent(merged: Mapping[str, Any], given: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Warnings about settings in effect that nobody asked for."""
    warnings = []
    sampled = bool(merged.get("do_sample"))
    for name, value in sorted(own.items()):
        inert = (name in SAMPLING_ONLY and not sampled) or name in BEAMS_ONLY
        if name in given or name in TOKENS or inert or name not in merged or NEUTRAL.get(name) == value:
            continue
        if merged[name] == value and value not in (False, 0):
            warnings.append(f"{name}={value} comes from the model's generation_config")
    if sampled and "top_k" not in merged:
        warnings.append(f"top_k={HF_TOP_K} is transformers' default; set top_k: 0 to sample from everything")
    return warnings


def _config(effective: Mapping[str, Any]) -> GenerationConfig:
    # Stop strings are watched for by the session, on the text it reads anyway; generate's own way of doing it costs
    # 9 to 39 % of the decoding speed of a small model.
    values = {name: value for name, value in effective.items() if name not in ("stop_strings", *LENGTHS)}
    try:
        config: GenerationConfig = _Config(**values)
    except (ValueError, TypeError) as error:
        raise UsageError("sampling", str(error).splitlines()[0]) from None
    return config


def nothing_set() -> GenerationConfig:
    """What a loaded model's own generation_config is replaced by, once its parameters have been read."""
    config: GenerationConfig = _Config()
    return config


def _ids(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(one) for one in value] if isinstance(value, (list, tuple)) else [int(value)]
