"""Which samplings of a run may be set against each other to see what one setting does.

Two samplings show what a parameter does if they differ in nothing else. So the samplings of a run are laid out, for
every parameter that they differ in, by its value and by *the rest*, which is everything else they say:

                 top_k: 5    20    50
    temperature 0.5     ×     ×     ×
    temperature 1       ×     ×     ×        a sweep of top_k, averaged over two temperatures
    do_sample: false                         its rest has one value: no part of it

Averages over the rest are taken only over rests that have all of the values, so that every value is averaged over the
same: rests with other values are a sweep of their own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NAMED = "setting"
"""The named setting of a sampling, as if it were a parameter."""
EACH = "sampling"
"""Every sampling by itself, as if its name were a parameter."""


@dataclass(frozen=True, slots=True)
class Level:
    """One value of what is swept."""

    value: str | None
    """As JSON, text without its quotes; None where the samplings do not say it."""
    number: float | None
    """The value where it is a number."""
    samplings: tuple[str, ...]
    """Those that have it, one for each rest; the rests are in the same order in every level of a sweep."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """A parameter, its values, and what they are averaged over."""

    parameter: str
    over: str
    """The values of other parameters that are averaged over; empty where there are none."""
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a sampling stands in the layout of a parameter."""

    sampling: str
    value: str | None
    number: float | None
    rest: Mapping[str, str]


def sweeps(manifest: Mapping[str, Any]) -> tuple[Sweep, ...]:
    """The sweeps of a run: its parameters in the order in which they are said, named settings, and each sampling by
    itself; the latter two only where no parameter has the very same rows. Values are in the order of the config."""
    samplings = {sampling["name"]: sampling["parameters"] for sampling in manifest["plan"]["samplings"]}
    names = dict.fromkeys(name for parameters in samplings.values() for name in parameters)
    found = [sweep for name in names for sweep in _laid_out(name, _by_parameter(name, samplings))]
    each = Sweep(EACH, "", tuple(Level(name, None, (name,)) for name in samplings))
    for sweep in (*_laid_out(NAMED, _by_setting(manifest, samplings)), each):
        if not any(_rows(sweep) == _rows(other) for other in found):
            found.append(sweep)
    return tuple(found)


def _rows(sweep: Sweep) -> set[tuple[str, ...]]:
    """What tells whether two sweeps have the very same rows."""
    return {level.samplings for level in sweep.levels}


def _by_parameter(name: str, samplings: Mapping[str, Mapping[str, Any]]) -> Iterator[_Placed]:
    for sampling, parameters in samplings.items():
        value = parameters.get(name)
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        rest = {other: _text(value) for other, value in parameters.items() if other != name}
        yield _Placed(sampling, _text(value) if name in parameters else None, number, rest)


def _by_setting(manifest: Mapping[str, Any], samplings: Mapping[str, Any]) -> Iterator[_Placed]:
    """Samplings are named by their setting, then by their values on the axes."""
    # A run that was not made from a config, as that of a selftest, has none.
    settings = manifest.get("config", {}).get("sampling", {}).get("settings", {})
    for sampling in samplings:
        own = [name for name in settings if sampling == name or sampling.startswith(f"{name},")]
        if own:
            setting = max(own, key=len)
            yield _Placed(sampling, setting, None, {"": sampling.removeprefix(setting).removeprefix(",")})


def _laid_out(parameter: str, placed: Iterator[_Placed]) -> Iterator[Sweep]:
    by_rest: dict[str, list[_Placed]] = {}
    for each in placed:
        by_rest.setdefault(json.dumps(each.rest, sort_keys=True), []).append(each)
    by_values: dict[frozenset[str | None], list[list[_Placed]]] = {}
    for members in by_rest.values():
        if len(members) > 1:
            by_values.setdefault(frozenset(each.value for each in members), []).append(members)
    differing = _differing([members[0].rest for rests in by_values.values() for members in rests])
    for rests in by_values.values():
        levels = tuple(
            Level(
                first.value,
                first.number,
                tuple(each.sampling for members in rests for each in members if each.value == first.value),
            )
            for first in rests[0]
        )
        yield Sweep(parameter, _over([members[0].rest for members in rests], differing), levels)


def _differing(rests: list[Mapping[str, str]]) -> list[str]:
    names = dict.fromkeys(name for rest in rests for name in rest)
    return [name for name in names if len({rest.get(name) for rest in rests}) > 1]


def _over(rests: list[Mapping[str, str]], differing: list[str]) -> str:
    values = {name: dict.fromkeys(rest.get(name, "not set") for rest in rests) for name in differing}
    return "; ".join(f"{name}={', '.join(seen)}" if name else ", ".join(seen) for name, seen in values.items())


def _text(value: Any) -> str:
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
