"""What the samplings of a run really amounted to, which of them draw nothing, and which greedy one each is held
against."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from harness.analysis.frames import Run
from harness.config.generation import SAMPLING_ONLY, is_greedy

_DRAWING = {"do_sample", *SAMPLING_ONLY}
"""Parameters that decide how an id is drawn, and do nothing else."""


def in_effect(run: Run, model: str, sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a sampling as generation really ran, or else as was asked for."""
    parameters = dict(sampling["parameters"])
    for effective in _told(run, model, sampling["name"]):
        parameters |= effective
    return parameters


def references(run: Run) -> Mapping[tuple[str, str], str]:
    """(model, sampling) → the greedy sampling of the model that it is held against, where there is one; a greedy one is
    held against itself.

    Of several that one which differs in the fewest parameters besides those of drawing; of these one without
    `do_sample` (at `top_k: 1` an id is still drawn, from one); of these that one which shares the most of the rest.
    """
    found = {}
    for model in (spec["label"] for spec in run.plan["models"]):
        effective = {sampling["name"]: in_effect(run, model, sampling) for sampling in run.plan["samplings"]}
        greedy = [name for name, parameters in effective.items() if is_greedy(parameters)]
        for name, own in effective.items():
            if name in greedy:
                found[model, name] = name
            elif greedy:
                found[model, name] = min(greedy, key=lambda other: _distance(own, effective[other]))
    return found


def _distance(own: Mapping[str, Any], greedy: Mapping[str, Any]) -> tuple[int, bool, int]:
    differing = {name for name in {*own, *greedy} if own.get(name) != greedy.get(name)}
    return len(differing - _DRAWING), bool(greedy.get("do_sample", False)), len(differing & _DRAWING)


def twins(run: Run) -> tuple[str, ...]:
    """A sentence for every two samplings that amounted to the very same settings of a model."""
    return tuple(
        f"{model}: {one} and {other} ran with the very same settings: what differs between them is chance."
        for model in (spec["label"] for spec in run.plan["models"])
        for one, other in _pairs(run, model)
    )


def _pairs(run: Run, model: str) -> Iterator[tuple[str, str]]:
    told = {
        sampling["name"]: json.dumps(list(_told(run, model, sampling["name"])), sort_keys=True)
        for sampling in run.plan["samplings"]
    }
    return ((one, other) for one, other in combinations(told, 2) if told[one] == told[other] != "[]")


def _told(run: Run, model: str, sampling: str) -> Iterator[Mapping[str, Any]]:
    """What each launch of the model says that this sampling amounted to."""
    return (
        launch["effective"][sampling]["values"]
        for launch in run.manifest["launches"]
        if launch["model"] == model and sampling in launch.get("effective", {})
    )
