"""What models are called in results: short where that is enough, and never the same for two of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from harness.config.schema import ModelSpec, Variants
from harness.config.server import server_of
from harness.config.variants import Variant, expanded
from harness.documents import Problem


def labelled(
    models: Sequence[ModelSpec], variants: Variants | None = None
) -> tuple[tuple[ModelSpec, ...], list[Problem]]:
    """The models with a label each, their variants one after the other, and what is wrong with any.

    `variants` are for those that have none of their own. The default label is the last part of the name
    (`tiiuae/falcon-7b-instruct` → `falcon-7b-instruct`, `builtin:pico` → `pico`), and says where weights are random;
    that of a variant is `pico int8`. Models that would share it are told apart by what differs: `pico dtype=float32`.
    """
    found, problems = expanded(models, variants or [])
    specs = [one.spec for one in found]
    short = [_with_variant(one) for one in found]
    labels = []
    for spec, name in zip(specs, short, strict=True):
        rivals = [other for other, theirs in zip(specs, short, strict=True) if theirs == name and other is not spec]
        labels.append(name if spec.label or not rivals else _told_apart(name, spec, rivals))
    for place, (one, label) in enumerate(zip(found, labels, strict=True)):
        if label in labels[:place]:
            earlier = found[labels.index(label)]
            fact = f"{label} is also what models.{earlier.index} is called"
            if earlier.index == one.index:
                fact = f"variant {one.name} is there twice"
            problems.append(Problem(("models", one.index), fact, "give it a label of its own"))
    return tuple(spec.model_copy(update={"label": label}) for spec, label in zip(specs, labels, strict=True)), problems


def _with_variant(one: Variant) -> str:
    name = one.spec.label or _marked(_short(one.spec.model), one.spec)
    return name if one.name is None else f"{name} {one.name}"


def _short(model: str) -> str:
    served = server_of(model)
    name = re.sub(r"^(builtin|scripted|shape):", "", model if served is None else served.model).rstrip("/")
    name = name.removesuffix("/config.json").rpartition("/")[2]
    return name.removesuffix(".yaml").removesuffix(".json") or model


def _marked(name: str, spec: ModelSpec) -> str:
    return f"{name} (random weights)" if spec.weights == "random" else name


def _told_apart(name: str, spec: ModelSpec, rivals: Sequence[ModelSpec]) -> str:
    different = [
        field
        for field in ModelSpec.model_fields
        if field != "label" and any(getattr(rival, field) != getattr(spec, field) for rival in rivals)
    ]
    if "model" in different:
        name = _marked(spec.model, spec)
        different = [field for field in different if _differs_for(field, spec, rivals)]
    return " ".join([name, *(f"{field}={_said(getattr(spec, field))}" for field in different)])


def _differs_for(field: str, spec: ModelSpec, rivals: Sequence[ModelSpec]) -> bool:
    """Whether a field is needed to tell specs of the same full name apart."""
    same = [rival for rival in rivals if rival.model == spec.model]
    return field != "model" and any(getattr(rival, field) != getattr(spec, field) for rival in same)


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
