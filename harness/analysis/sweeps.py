"""Which generation parameters a run sweeps: those that some of its samplings differ in, and in nothing else.

Two samplings that differ in two parameters say nothing of either; `greedy` beside `temperature: 0.7, top_p: 0.9` is no
sweep. A grid is several: of `top_k: [1, 10]` × `temperature: [0.5, 1]` each parameter is swept twice, at each value of
the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sweep:
    """Samplings of a run that differ in one parameter only."""

    parameter: str
    samplings: tuple[tuple[Any, str], ...]
    """(value, name of the sampling), numbers ascending, else in the order of the config; a value of None was left to
    the model."""
    rest: Mapping[str, Any]
    """The parameters that are swept elsewhere, at the values they have here."""

    @property
    def numeric(self) -> bool:
        """Whether all values are numbers, so that they have an order and distances."""
        return all(isinstance(value, int | float) and not isinstance(value, bool) for value, _ in self.samplings)

    @property
    def given(self) -> str:
        """The rest as text: `temperature=0.5, do_sample=true`."""
        return ", ".join(f"{name}={shown(value)}" for name, value in self.rest.items())


def shown(value: Any) -> str:
    """A value of a parameter as text, as a config would have it."""
    if value is None:
        return "the model's own"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def sweeps(samplings: Sequence[Mapping[str, Any]]) -> list[Sweep]:
    """The sweeps of the samplings of a plan, in the order of the parameters in the config."""
    names = dict.fromkeys(name for sampling in samplings for name in sampling["parameters"])
    found = [sweep for name in names for sweep in _of(name, samplings)]
    swept = {sweep.parameter for sweep in found}
    return [Sweep(each.parameter, each.samplings, {k: v for k, v in each.rest.items() if k in swept}) for each in found]


def _of(parameter: str, samplings: Sequence[Mapping[str, Any]]) -> list[Sweep]:
    alike: dict[str, list[tuple[Any, str]]] = {}
    rests: dict[str, dict[str, Any]] = {}
    for sampling in samplings:
        rest = {name: value for name, value in sampling["parameters"].items() if name != parameter}
        key = json.dumps(rest, sort_keys=True)
        rests[key] = rest
        alike.setdefault(key, []).append((sampling["parameters"].get(parameter), sampling["name"]))
    made = [Sweep(parameter, tuple(values), rests[key]) for key, values in alike.items() if len(values) > 1]
    return [
        Sweep(parameter, tuple(sorted(each.samplings, key=lambda pair: pair[0])), each.rest) if each.numeric else each
        for each in made
    ]
