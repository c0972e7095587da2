"""What rows of charts have in common: how settings are called and told apart, and in which unit metrics are drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.metrics import METRICS
from harness.report.plots import BETWEEN, Series
from harness.report.units import printable

_MOST_HUES = 8
"""As many colours as the themes have."""
_MOST_DASHES = 4
"""More kinds of dashes than these nobody tells apart."""


class Labels:
    """How settings are called and told apart in charts: by what they differ in."""

    def __init__(self, settings: pd.DataFrame, keys: Sequence[str] = SETTING) -> None:
        names = {key: tuple(dict.fromkeys(called(key, value) for value in settings[key])) for key in keys}
        self._varying = [key for key in keys if len(names[key]) > 1] or [keys[0]]
        hue, dash = (*self._varying, None, None)[:2]
        self._hue = hue if hue and 1 < len(names[hue]) <= _MOST_HUES else None
        self._dash = dash if dash and len(names[dash]) <= _MOST_DASHES else None
        self.series = Series(names[self._hue] if self._hue else (), names[self._dash] if self._dash else ())

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        """The fields of a row that name it."""
        named = {"setting": BETWEEN.join(called(key, row[key]) for key in self._varying)}
        if self._hue:
            named["hue"] = called(self._hue, row[self._hue])
        if self._dash:
            named["dash"] = called(self._dash, row[self._dash])
        return named

    def model(self, name: str) -> dict[str, str]:
        """The fields of a row that is of a whole model."""
        return {"setting": text(name), **({"hue": text(name)} if self._hue == "model" else {})}


def called(key: str, value: Any) -> str:
    return f"{value} at a time" if key == "concurrency" else text(str(value))


def text(foreign: str) -> str:
    """Foreign text on one line, with everything that does not show written out."""
    return " ".join(printable(foreign).split())


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame, None for what is absent."""
    known = frame.astype(object).where(frame.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in known.to_dict("records")]


def drawn(metric: str) -> tuple[str, float]:
    """(title with unit, what a value is multiplied by) of a metric."""
    known = METRICS[metric]
    unit, factor = {"s": ("ms", 1000.0), "bytes": ("MiB", 2.0**-20)}.get(known.unit, (known.unit, 1.0))
    return f"{known.title} ({unit})", factor


def times(value: Any, factor: float) -> float | None:
    return None if value is None else factor * float(value)
