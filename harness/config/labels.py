"""What models are called in results: short where that is enough, and never the same for two of them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from harness.config.schema import ModelSpec
from harness.config.server import server_of
from harness.documents import Problem


def labelled(models: Sequence[ModelSpec]) -> tuple[tuple[ModelSpec, ...], list[Problem]]:
    """The models with a label each, and those that cannot be told apart.

    The default label is the last part of the name (`tiiuae/falcon-7b-instruct` → `falcon-7b-instruct`, `builtin:pico` →
    `pico`), and says where weights are random. Models that would share it are told apart by what differs: `pico
    dtype=float32`.
    """
    short = [spec.label or _marked(_short(spec.model), spec) for spec in models]
    labels = []
    for spec, name in zip(models, short, strict=True):
        rivals = [other for other, theirs in zip(models, short, strict=True) if theirs == name and other is not spec]
        labels.append(name if spec.label or not rivals else _told_apart(name, spec, rivals))
    problems = []
    for index, label in enumerate(labels):
        if label in labels[:index]:
            fact = f"{label} is also what models.{labels.index(label)} is called"
            problems.append(Problem(("models", index), fact, "give it a label of its own"))
    return tuple(spec.model_copy(update={"label": label}) for spec, label in zip(models, labels, strict=True)), problems


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
