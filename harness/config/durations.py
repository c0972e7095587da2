"""How long something may take, as people write it: `45min`, `1h 30min`, `90 s`."""

from __future__ import annotations

import re

_UNITS = {"h": 3600.0, "min": 60.0, "s": 1.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(h|min|s)\s*")


def seconds(text: str) -> float:
    """The seconds of a text such as `45min`. Raises ValueError with a sentence that says what is wrong."""
    told: dict[str, float] = {}
    place = 0
    while found := _PART.match(text, place):
        number, unit = found.groups()
        if unit in told:
            break
        told[unit], place = float(number) * _UNITS[unit], found.end()
    if place != len(text) or not sum(told.values()):
        raise ValueError(f"{text!r} is no time – write one such as 45min or 1h 30min")
    return sum(told.values())
