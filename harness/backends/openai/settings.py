"""A sampling, as the fields of a request: what Hugging Face's names become in a server's dialect, or why they cannot.

Greedy is asked for as temperature 0, where there is no field for all of Hugging Face's parameters. What a sampling does
not set is sent as what transformers would do: everything neutral, and 50 for top_k where the server knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from harness.backends.limits import Limits
from harness.backends.openai.dialects import Spoken
from harness.backends.seam import EffectiveSettings
from harness.config.generation import GENERATION_PARAMETERS, SAMPLING_ONLY, is_greedy
from harness.errors import UsageError
from harness.records import Length

HF_NEW_TOKENS = 20  # transformers.GenerationConfig's default length, counted without the prompt
HF_TOP_K = 50  # its default top_k
_ANYWAY: Mapping[str, Any] = {
    "num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "typical_p": 1.0, "min_p": 0.0,
    "min_new_tokens": 0, "min_length": 0, "no_repeat_ngram_size": 0, "length_penalty": 1.0, "guidance_scale": 1.0,
}  # fmt: skip
"""Values that ask for nothing, which every server can do."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A sampling, ready to be asked for."""

    effective: EffectiveSettings
    fields: Mapping[str, Any]
    """Of the request; the seed is not among them."""
    greedy: bool
    stop_strings: tuple[str, ...]
    limits: Limits


def settle(sampling: Mapping[str, Any], length: Length, spoken: Spoken, context_tokens: int | None) -> Settled:
    """What a sampling amounts to with a server. Raises UsageError for what that server cannot be asked for."""
    given = {name: value for name, value in sampling.items() if value is not None}
    greedy = is_greedy(given)
    warnings = []
    if greedy:
        inert = {name: given.pop(name) for name in SAMPLING_ONLY if name in given}
        warnings += [
            f"{name}={value} has no effect: the reply is greedy" for name, value in inert.items() if name != "top_k"
        ]
    elif given.get("temperature", 1.0) <= 0:
        raise UsageError(
            "sampling.temperature", "must be above 0 with do_sample", "for greedy replies: do_sample: false"
        )
    _refuse(given, length, spoken)
    if length == "fixed":
        given.pop("stop_strings", None)
    if "max_new_tokens" in given and "max_length" in given:
        warnings.append(f"max_length={given.pop('max_length')} has no effect: max_new_tokens wins over it")
    if "max_new_tokens" not in given and "max_length" not in given:
        given["max_new_tokens"] = HF_NEW_TOKENS
        warnings.append(f"max_new_tokens={HF_NEW_TOKENS}, as in transformers: neither it nor max_length is set")
    given = {name: value for name, value in given.items() if _ANYWAY.get(name) != value}
    if greedy:
        effective = {**given, "do_sample": False}
    else:
        effective = {**given, "do_sample": True}
        _fill(effective, spoken, warnings)
    fields = _in_container(effective, length, spoken) if spoken.container else _as_fields(effective, length, spoken)
    stops = effective.get("stop_strings", ())
    return Settled(
        EffectiveSettings(dict(sorted(effective.items())), tuple(warnings)),
        fields,
        greedy,
        (stops,) if isinstance(stops, str) else tuple(stops),
        Limits.of(effective, context_tokens),
    )


def _refuse(given: Mapping[str, Any], length: Length, spoken: Spoken) -> None:
    if length == "fixed" and "max_new_tokens" not in given:
        raise UsageError("length: fixed", "needs max_new_tokens", "set sampling.max_new_tokens")
    if length == "fixed" and spoken.fixed is None:
        fact = f"cannot be asked of {spoken.title}: nothing makes it go on past the end of text"
        raise UsageError("length: fixed", fact, "use length: natural")
    for name, value in given.items():
        if name not in GENERATION_PARAMETERS:
            raise UsageError(f"sampling.{name}", "is no generation parameter", "see transformers.GenerationConfig")
        if _ANYWAY.get(name) == value or spoken.container or name in ("do_sample", "max_new_tokens", *spoken.fields):
            continue
        if name == "max_length":
            fact = f"cannot be asked of {spoken.title}: it counts replies without their prompts"
            raise UsageError("sampling.max_length", fact, "set max_new_tokens")
        silent = any(name in said for said in spoken.ignored)
        why = "it passes over it in silence" if silent else "it has no field for it"
        fact = f"cannot be asked of {spoken.title}: {why}"
        raise UsageError(f"sampling.{name}", fact, "leave it out for this server")


def _fill(effective: dict[str, Any], spoken: Spoken, warnings: list[str]) -> None:
    """What is drawn from where nobody says: as transformers would."""
    effective.setdefault("temperature", 1.0)
    if spoken.container or "top_k" in spoken.fields:
        if "top_k" not in effective:
            effective["top_k"] = HF_TOP_K
            warnings.append(f"top_k={HF_TOP_K} is transformers' default; set top_k: 0 to sample from everything")
    else:
        warnings.append(f"top_k cannot be told to {spoken.title}: it draws from whatever it draws from")


def _as_fields(effective: Mapping[str, Any], length: Length, spoken: Spoken) -> Mapping[str, Any]:
    """A field of the request for each parameter."""
    drawn = effective["do_sample"]
    neutral = {name: value for name, value in spoken.neutral.items() if drawn or name not in SAMPLING_ONLY}
    told = {name: value for name, value in {**neutral, **effective}.items() if name in spoken.fields}
    if not drawn:
        told["temperature"] = 0.0
    if told.get("top_k") == 0:
        told["top_k"] = spoken.all_of_top_k
    if isinstance(told.get("stop_strings"), str):
        told["stop_strings"] = [told["stop_strings"]]
    fixed = (spoken.fixed or {}) if length == "fixed" else {}
    fields = {spoken.fields[name]: value for name, value in told.items()}
    return {**fields, spoken.max_new_tokens: effective["max_new_tokens"], **spoken.extra, **fixed}


def _in_container(effective: Mapping[str, Any], length: Length, spoken: Spoken) -> Mapping[str, Any]:
    """All parameters in one field."""
    assert spoken.container is not None, "who calls has looked"
    neutral = {
        name: value for name, value in spoken.neutral.items() if effective["do_sample"] or name not in SAMPLING_ONLY
    }
    told = {**neutral, **effective, **((spoken.fixed or {}) if length == "fixed" else {})}
    return {spoken.container: orjson.dumps(told).decode()}
