"""The variants of a model that have names: other dtypes, quantisations, attention. One model, several specs.

A variant is a few keys of a model spec put over those that are given; what it does not say stays. int8, int4, bnb8 and
bnb4 compute in bfloat16, so that against bf16 the quantisation is all that differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.config.schema import ModelSpec, Variants
from harness.documents import Keys, Problem, did_you_mean, fit

_TORCHAO = "torchao"
_BITSANDBYTES = "bitsandbytes"


def _dtype(name: str, **quantization: Any) -> Mapping[str, Any]:
    return MappingProxyType({"dtype": name, "quantization": quantization or None})


def _attention(name: str) -> Mapping[str, Any]:
    return MappingProxyType({"attn_implementation": name})


VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "saved": MappingProxyType({}),
        "fp32": _dtype("float32"),
        "bf16": _dtype("bfloat16"),
        "fp16": _dtype("float16"),
        "int8": _dtype("bfloat16", quant_method=_TORCHAO, quant_type="int8_weight_only"),
        "int4": _dtype("bfloat16", quant_method=_TORCHAO, quant_type="int4_weight_only"),
        "bnb8": _dtype("bfloat16", quant_method=_BITSANDBYTES, load_in_8bit=True),
        "bnb4": _dtype("bfloat16", quant_method=_BITSANDBYTES, load_in_4bit=True),
        "eager": _attention("eager"),
        "sdpa": _attention("sdpa"),
        "flash": _attention("flash_attention_2"),
    }
)
"""Name → what it sets in a model spec."""
_NOT_SET = ("model", "revision", "variants")
"""What makes another model, not a variant of this one."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A spec, and which it is of which entry of the config."""

    index: int
    name: str | None
    """None for a model without variants."""
    spec: ModelSpec


def expanded(models: Sequence[ModelSpec], variants: Variants) -> tuple[list[Variant], list[Problem]]:
    """Every model once for each of its own variants, or of those given where it has none; and what is wrong."""
    found: list[Variant] = []
    problems: list[Problem] = []
    for index, model in enumerate(models):
        plain = model.model_copy(update={"variants": []})
        where: Keys = ("models", index, "variants") if model.variants else ("variants",)
        chosen = model.variants or variants
        if not chosen:
            found.append(Variant(index, None, plain))
        for place, one in enumerate(chosen):
            name, changes, wrong = _changes(one)
            spec, misfits = fit({**plain.model_dump(), **changes}, ModelSpec) if wrong is None else (None, [])
            problems += [Problem((*where, place), f"variant {name}: {_under(each)}", each.remedy) for each in misfits]
            problems += [Problem((*where, place), *wrong)] if wrong is not None else []
            found += [Variant(index, name, spec)] if spec is not None else []
    return found, list(dict.fromkeys(problems))


def _changes(one: str | dict[str, Any]) -> tuple[str, dict[str, Any], tuple[str, str] | None]:
    """(what a variant is called, the keys that it sets, what is wrong with it and what to do)."""
    if isinstance(one, str):
        wrong = None if one in VARIANTS else (f"{one} is no variant", did_you_mean(one, VARIANTS))
        return one, dict(VARIANTS.get(one, {})), wrong
    name = one.get("label")
    if not isinstance(name, str) or not name:
        return "", {}, ("a variant that is a mapping needs a label", "say what to call it")
    for key in _NOT_SET:
        if key in one:
            return name, {}, (f"variant {name} cannot set {key}", "list another model")
    return name, {key: value for key, value in one.items() if key != "label"}, None


def _under(problem: Problem) -> str:
    return f"{'.'.join(map(str, problem.path))}: {problem.fact}" if problem.path else problem.fact


def name_and_revision(text: str) -> tuple[str, str | None]:
    """The name and the revision of an adapter or a tokenizer that is written as NAME[@REVISION]."""
    name, _, revision = text.partition("@")
    return (text, None) if Path(text).expanduser().exists() else (name, revision or None)
