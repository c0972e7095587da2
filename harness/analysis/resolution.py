"""How small a difference in speed a machine can show: the spread of identical work, and what it means for a comparison.

Speed is compared by launches: each launch is one number, the mean logarithm of its turns. Two sides of K launches
that differ by nothing but chance differ by about S·√(2/K), where S is the standard deviation of such numbers. A t-test
on 2K − 2 degrees of freedom asks for a multiple of that before it says *different*; a true difference has to be larger
still to be found most of the time. That is the resolution: found at 95 % confidence (two-sided) with 80 % power.

Differences are of logarithms, so a resolution is a ratio: 1.04 means that 4 % can be told from nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev
from typing import Any

from scipy.optimize import brentq
from scipy.stats import chi2, nct, t

from harness.analysis.frames import Run
from harness.analysis.stats import CONFIDENCE

POWER = 0.8
"""How often a difference of the size of the resolution is found."""

_SAME_TURN = ["sampling", "conversation_id", "turn_index"]


@dataclass(frozen=True, slots=True)
class Spread:
    """How much the times of identical work differ, as standard deviations of natural logarithms (0.02: about 2 %)."""

    metric: str
    launch_means: tuple[float, ...]
    """Mean logarithm over the turns of every launch: one number per launch."""
    turns: int
    """Turns behind each of these numbers."""
    within: float | None
    """Between repeats of the same turn in the same launch; None without repeats."""
    between: float
    """Between launches. It holds what is left of the spread within them, which more turns would average out."""
    between_low: float
    between_high: float
    """Where it lies with 95 % confidence (χ²): a few launches know their spread only roughly."""


def spread(run: Run, model: str, metric: str) -> Spread:
    """The spread of a speed metric over the launches of one model that played the same turns.

    Raises ValueError for fewer than two launches.
    """
    turns = run.turns[(run.turns["model"] == model) & (run.turns[metric] > 0)]
    logs = turns.assign(log=[math.log(value) for value in turns[metric]])
    by_turn: dict[Any, list[float]] = logs.groupby(["launch", *_SAME_TURN])["log"].agg(list).to_dict()
    launches: dict[object, list[float]] = {}
    for (launch, *_), values in by_turn.items():
        launches.setdefault(launch, []).append(fmean(values))
    if len(launches) < 2:
        raise ValueError(f"{len(launches)} launches of {model} have a {metric}: a spread takes two")
    squares = sum((value - fmean(values)) ** 2 for values in by_turn.values() for value in values)
    degrees = sum(len(values) - 1 for values in by_turn.values())
    means = [fmean(values) for values in launches.values()]
    between = stdev(means)
    low, high = (
        between * math.sqrt((len(means) - 1) / float(chi2.ppf((1 + tail * CONFIDENCE) / 2, len(means) - 1)))
        for tail in (1, -1)
    )
    return Spread(
        metric=metric,
        launch_means=tuple(means),
        turns=len(turns) // len(launches),
        within=math.sqrt(squares / degrees) if degrees else None,
        between=between,
        between_low=low,
        between_high=high,
    )


def smallest_ratio(sd: float, launches: int) -> float:
    """The smallest ratio of two sides that `launches` launches on each of them tell from 1, at 95 % confidence with
    80 % power, where launches of the same thing have the standard deviation `sd` in their logarithms.

        ratio = exp(λ · sd · √(2/K)),  where P(|T| > t₀.₉₇₅) = 0.8 for T of the noncentral t-distribution with
                                       2K − 2 degrees of freedom and noncentrality λ

    Raises ValueError for fewer than two launches: one per side has no spread to be judged by.
    """
    if launches < 2:
        raise ValueError("a comparison takes two launches per side")
    return math.exp(_noncentrality(launches) * sd * math.sqrt(2 / launches))


@cache
def _noncentrality(launches: int) -> float:
    """How many standard errors a difference must measure to be found with `POWER`."""
    degrees = 2 * launches - 2
    critical = float(t.ppf((1 + CONFIDENCE) / 2, degrees))

    def lacking(noncentrality: float) -> float:
        found = nct.sf(critical, degrees, noncentrality) + nct.cdf(-critical, degrees, noncentrality)
        return float(found) - POWER

    # The sum of both quantiles is the usual approximation, good to a few per cent; the answer lies round it.
    near = critical + float(t.ppf(POWER, degrees))
    return float(brentq(lacking, near / 2, near * 2))
