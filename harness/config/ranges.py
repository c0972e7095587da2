"""Ranges of generation parameters: `top_p: {low: 0.5, high: 1.0}` stands for every value between, for a search to try.

They stand directly under `sampling`, beside its axes, and only a config with a `tune` section may have them. Ends
belong to the range; `log: true` tries as many values between 0.1 and 1 as between 1 and 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.config.generation import GENERATION_PARAMETERS, checked
from harness.documents import Keys, Problem, described

_KEYS = {"low", "high", "log"}


@dataclass(frozen=True, slots=True)
class Range:
    """The values from `low` to `high`, whole numbers only where the parameter takes no others."""

    low: float
    high: float
    log: bool
    whole: bool


def without_ranges(sampling: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Range], list[Problem]]:
    """(the sampling section without its ranges, these, what is wrong with them)."""
    problems: list[Problem] = []
    rest: dict[str, Any] = {}
    ranges: dict[str, Range] = {}
    for name, value in sampling.items():
        if _is_range(name, value):
            found = _range(name, value, ("sampling", name), problems)
            if found is not None:
                ranges[name] = found
        else:
            rest[name] = value
    return rest, ranges, problems


def _is_range(name: str, value: Any) -> bool:
    numeric = name in GENERATION_PARAMETERS and GENERATION_PARAMETERS[name].kind in ("int", "float")
    return numeric and not GENERATION_PARAMETERS[name].refused and isinstance(value, dict) and bool(_KEYS & set(value))


def _range(name: str, value: Mapping[str, Any], path: Keys, problems: list[Problem]) -> Range | None:
    """The range a mapping stands for; None with its problems."""
    before = len(problems)
    problems += [Problem((*path, key), "unknown key", "known: low, high, log") for key in value if key not in _KEYS]
    ends: dict[str, Any] = {}
    for key in ("low", "high"):
        if value.get(key) is None:
            problems.append(Problem(path, f"a range needs {key}", "write {low: …, high: …}"))
            continue
        ends[key], wrong = checked(name, value[key])
        if wrong:
            problems.append(Problem((*path, key), wrong))
    log = value.get("log", False)
    if not isinstance(log, bool):
        problems.append(Problem((*path, "log"), f"should be true or false, not {described(log)}"))
    if len(problems) > before:
        return None
    if ends["low"] >= ends["high"]:
        problems.append(Problem(path, f"{ends['low']:g} to {ends['high']:g} is no range", "low must be below high"))
    elif log and ends["low"] <= 0:
        problems.append(Problem((*path, "low"), "should be above 0 where log is true"))
    return Range(ends["low"], ends["high"], log, GENERATION_PARAMETERS[name].kind == "int")
