"""Figures: one number over many turns, called by name, and limits that hold one against a value.

    e2e_s.p95  peak_memory_bytes.max  completion_tokens.mean      a quantity of a turn, and a statistic over the turns
    check_pass_rate  truncation_rate  failure_rate  repetition    a rate, which is a figure by itself
    e2e_s.p95 < 2 s    truncation_rate < 1 %                      a limit, in any unit of its quantity

Only names are dealt with here, so that a config is checked before anything is measured; `analysis/figures.py` works
figures out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from harness.documents import did_you_mean

if TYPE_CHECKING:
    from harness.metrics import Direction, Metric

Better = Literal["lower", "higher"]

SAMPLES_FOR_P95 = 60
SAMPLES_FOR_P99 = 300
"""Below these, three samples or fewer lie beyond the percentile, and it is the luck of the draw."""
STATISTICS = ("mean", "p50", "p95", "p99", "min", "max")
LEAST_TURNS: Mapping[str, int] = {"p95": SAMPLES_FOR_P95, "p99": SAMPLES_FOR_P99}
"""How many turns a statistic takes; one where nothing is said."""
COUNTS = ("prompt_tokens", "cached_tokens", "completion_tokens", "tokens_left")
"""Counts of a turn that have statistics as metrics do; neither more nor fewer of them is better."""
RATES: Mapping[str, Better] = {
    "check_pass_rate": "higher",
    "truncation_rate": "lower",
    "failure_rate": "lower",
    "repetition": "lower",
}
ABOUT_REPLIES = ("check_pass_rate", "truncation_rate", "repetition")
"""Rates that mean nothing where replies are forced to a length, or come from random weights."""

_UNITS: Mapping[str, Mapping[str, float]] = {
    "s": {"s": 1, "ms": 1e-3, "µs": 1e-6, "us": 1e-6, "min": 60},
    "bytes": {
        "B": 1,
        "bytes": 1,
        "kB": 10**3,
        "MB": 10**6,
        "GB": 10**9,
        "TB": 10**12,
        "KiB": 2**10,
        "MiB": 2**20,
        "GiB": 2**30,
        "TiB": 2**40,
    },
    "tokens/s": {"tokens/s": 1, "tok/s": 1},
    "tokens": {"tokens": 1},
    "J": {"J": 1, "mJ": 1e-3, "kJ": 1e3},
    "ratio": {"%": 0.01},
}
"""The units in which a value of each unit of the metrics may be written; none at all is the metric's own."""
_LIMIT = re.compile(r"\s*([\w.]+)\s*(<=|>=|<|>)\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\d\s]\S*)?\s*")


@dataclass(frozen=True, slots=True)
class Figure:
    """One number over many turns: a quantity of a turn and a statistic, or a rate."""

    quantity: str
    statistic: str | None
    """None for a rate."""

    @property
    def name(self) -> str:
        return self.quantity if self.statistic is None else f"{self.quantity}.{self.statistic}"

    @property
    def is_rate(self) -> bool:
        return self.statistic is None

    @property
    def unit(self) -> str:
        """A unit of the metrics; tokens for a count, ratio for a rate."""
        if self.is_rate:
            return "ratio"
        return "tokens" if self.quantity in COUNTS else known_metrics()[self.quantity].unit

    @property
    def direction(self) -> Direction:
        """Which way is better, where that is known of every use of the figure."""
        if self.is_rate:
            return RATES[self.quantity]
        return "neither" if self.quantity in COUNTS else known_metrics()[self.quantity].direction

    @property
    def least_turns(self) -> int:
        """With fewer turns than this there is no such figure."""
        return LEAST_TURNS.get(self.statistic or "", 1)


@dataclass(frozen=True, slots=True)
class Objective:
    """A figure that is to be as low, or as high, as it can be."""

    figure: Figure
    better: Better


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound that a figure has to keep."""

    figure: Figure
    sign: str
    """< <= > or >="""
    bound: float
    """In the figure's own unit."""
    text: str
    """As it was written."""

    @property
    def better(self) -> Better:
        """On which side of the bound a value keeps it."""
        return "lower" if self.sign.startswith("<") else "higher"

    def keeps(self, value: float) -> bool:
        if value == self.bound:
            return self.sign.endswith("=")
        return (value < self.bound) == (self.better == "lower")


def known_metrics() -> Mapping[str, Metric]:
    """The table of metrics, fetched when it is asked for: it needs numpy, which counts the processors it may use, and a
    worker knows only from its job – which holds a config – which ones these are."""
    from harness.metrics import METRICS

    return METRICS


def parse_figure(text: str) -> Figure:
    """The figure of a name; a quantity in bytes may stand alone, and is its maximum then.

    Raises ValueError with a sentence that says what is wrong and what to write.
    """
    quantity, dot, statistic = text.strip().partition(".")
    if quantity in RATES:
        if dot:
            raise ValueError(f"{quantity} is a rate, which has no {statistic} – write {quantity}")
        return Figure(quantity, None)
    metrics = known_metrics()
    if quantity not in metrics and quantity not in COUNTS:
        raise ValueError(_with(f"there is no figure {quantity}", did_you_mean(quantity, [*metrics, *COUNTS, *RATES])))
    if not dot and quantity in metrics and metrics[quantity].unit == "bytes":
        return Figure(quantity, "max")
    if statistic not in STATISTICS:
        fact = f"{quantity} has no statistic {statistic}" if statistic else f"{quantity} says no statistic"
        raise ValueError(f"{fact} – write one of {', '.join(f'{quantity}.{each}' for each in STATISTICS)}")
    return Figure(quantity, statistic)


def parse_objective(text: str, better: Better) -> Objective:
    """What is to be as low or as high as can be. Raises ValueError, also where the other way is the better one."""
    figure = parse_figure(text)
    if figure.direction not in ("neither", better):
        verb = "minimize" if figure.direction == "lower" else "maximize"
        raise ValueError(f"{figure.name} is the better the {figure.direction} it is – {verb} it")
    return Objective(figure, better)


def parse_limit(text: str) -> Limit:
    """The limit of a text such as `e2e_s.p95 < 2 s`. Raises ValueError as `parse_figure` does."""
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no limit – write one such as e2e_s.p95 < 2 s")
    name, sign, number, unit = found.groups()
    figure = parse_figure(name)
    bound = _bound(number, unit, figure)
    limit = Limit(figure, sign, bound, " ".join(text.split()))
    if figure.direction not in ("neither", limit.better):
        other = sign.translate(str.maketrans("<>", "><"))
        raise ValueError(f"{figure.name} is the better the {figure.direction} it is – write {other} to limit it")
    return limit


def amount(value: float, unit: str, own: str, name: str) -> float:
    """What is written in some unit as a number of a figure's own one. Raises ValueError where it has no such unit."""
    units = _UNITS[own]
    if unit not in units:
        raise ValueError(_with(f"{name} has no unit {unit}", f"write {', '.join(units)}"))
    return value * units[unit]


def _bound(number: str, unit: str | None, figure: Figure) -> float:
    try:
        value = float(number)
    except ValueError:
        raise ValueError(f"{number} is no number") from None
    bound = value if unit is None else amount(value, unit, figure.unit, figure.name)
    if not math.isfinite(bound) or bound < 0:
        raise ValueError(f"{number} is no value that {figure.name} can have")
    if figure.is_rate and unit is None and bound >= 1:
        raise ValueError(f"{figure.name} is a share of 1 – write {number} %")
    if figure.is_rate and bound > 1:
        raise ValueError(f"{figure.name} is never more than 100 %")
    return bound


def _with(fact: str, remedy: str) -> str:
    return f"{fact} – {remedy}" if remedy else fact
