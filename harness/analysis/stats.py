"""Point values and intervals: what may be said from how much, and nothing more.

Two estimands, never mixed. *Speed*: the conversations are fixed and the launches are the sample, because the spread
between two processes is where speed differences hide; a thousand turns of one process are still one process.
*Behaviour*: the conversations are the sample, because turns of one conversation share its history.

All intervals are two-sided at 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import quantile_test, t

from harness.config.figures import SAMPLES_FOR_P95, SAMPLES_FOR_P99

CONFIDENCE = 0.95
CONVERSATIONS_TO_GENERALISE = 6
"""With fewer conversations nothing is claimed about others; five of them cannot even reach p < 0.05 by sign flips."""

Values = Sequence[float] | npt.NDArray[np.float64]
Basis = Literal["launches", "one launch", "conversations", "few conversations"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval. None where there is nothing to say; `n` counts what the basis names."""

    value: float | None
    low: float | None = None
    high: float | None = None
    basis: Basis | None = None
    """What the interval speaks about: other launches; only this launch; other conversations; or, with fewer than
    `CONVERSATIONS_TO_GENERALISE`, hardly more than these conversations. None without an interval."""
    n: int = 0


def percentile(values: Values, q: float) -> float | None:
    """The q-th percentile, 0 < q < 100, linear between order statistics (Hyndman and Fan's type 7, numpy's default).

    None without values, and where it would be made of too few samples: p95 below 60, p99 below 300.
    """
    needed = SAMPLES_FOR_P99 if q >= 99 else SAMPLES_FOR_P95 if q >= 95 else 1
    if len(values) < needed:
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    position = (len(ordered) - 1) * q / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return float(ordered[below] + (position - below) * (ordered[above] - ordered[below]))


def median(values: Values) -> float:
    """The middle one, or the mean of the two in the middle."""
    return float(np.median(values))


def centre(by_launch: Mapping[int, Values]) -> float | None:
    """The value of `typical` without its interval, which takes a thousand times as long to find."""
    medians = [median(values) for values in by_launch.values() if len(values)]
    if not medians:
        return None
    return median(medians) if len(medians) == 1 or min(medians) <= 0 else math.exp(fmean(map(math.log, medians)))


def typical(by_launch: Mapping[int, Values]) -> Estimate:
    """The p50 of a speed metric, from its positive values by launch.

    Several launches: the geometric mean of the launches' medians, with a t-interval over their logarithms (launches
    are the sample; logarithms, because times are positive, skewed, and compared as ratios). One launch: its median,
    with the interval of order statistics that covers the median of *this launch* (Conover, Practical Nonparametric
    Statistics, 3rd ed., §3.2; scipy.stats.quantile_test), which exists from six values on.
    """
    launches = [values for values in by_launch.values() if len(values)]
    if not launches:
        return Estimate(None)
    if len(launches) == 1:
        return _within_one_launch(launches[0])
    medians = [median(values) for values in launches]
    value = centre(by_launch)
    if value is None or min(medians) <= 0:  # a clock too coarse for this quantity: it has no logarithm
        return Estimate(value, n=len(medians))
    logs = [math.log(value) for value in medians]
    reach = math.exp(t_quantile(len(logs) - 1) * stdev(logs) / math.sqrt(len(logs)))
    return Estimate(value, value / reach, value * reach, "launches", n=len(launches))


def _within_one_launch(values: Values) -> Estimate:
    interval = quantile_test(values, q=0, p=0.5).confidence_interval(CONFIDENCE)
    low, high = float(interval.low), float(interval.high)
    if math.isnan(low) or math.isnan(high):  # too few values for any pair of order statistics
        return Estimate(median(values), n=1)
    return Estimate(median(values), low, high, "one launch", n=1)


def pass_rate(passed: Values, total: Values, turns: int) -> Estimate:
    """The share of checks passed, with an interval over conversations; `n` is the number of conversations.

    `passed` and `total` are the checks of each conversation that were met and that were to be met, `turns` how many
    turns (greedy repeats being one) had any.

    The rate p is a ratio over conversations as clusters, and its variance the linearised one of a ratio estimate

        v = C/(C−1) · Σ_c (passed_c − p · total_c)² / total²        (Cochran, Sampling Techniques, 3rd ed., ch. 9A)

    With it the turns are worth n* = p(1−p)/v independent ones (Kish's design effect; Korn and Graubard, Survey
    Methodology 24, 1998), kept between the number of conversations and the number of turns; at p = 0 or 1, where the
    turns cannot show how alike they are, n* is the number of conversations. The interval is Wilson's at n*, with the
    t-quantile of C−1 degrees of freedom: with the normal one, three conversations of alike turns are covered in 87 %
    of simulated runs instead of 95 %.

    No interval below two conversations; below six it is marked "few conversations".
    """
    conversations = np.asarray(total, dtype=np.float64) > 0
    met = np.asarray(passed, dtype=np.float64)[conversations]
    due = np.asarray(total, dtype=np.float64)[conversations]
    clusters = len(due)
    if not clusters:
        return Estimate(None)
    rate = float(met.sum() / due.sum())
    if clusters < 2:
        return Estimate(rate, n=clusters)
    spread = float(((met - rate * due) ** 2).sum())
    variance = clusters / (clusters - 1) * spread / float(due.sum()) ** 2
    low, high = wilson(rate, effective_size(rate, variance, clusters, turns), t_quantile(clusters - 1))
    basis: Basis = "conversations" if clusters >= CONVERSATIONS_TO_GENERALISE else "few conversations"
    return Estimate(rate, low, high, basis, clusters)


def effective_size(rate: float, variance: float, clusters: int, turns: int) -> float:
    """How many independent turns give a rate this variance, between `clusters` and `turns`."""
    if not 0 < rate < 1:
        return clusters
    if variance <= 0:  # every conversation at the very same rate
        return turns
    return min(max(rate * (1 - rate) / variance, clusters), turns)


def wilson(rate: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion seen in `n` observations (JASA 22, 1927), within [0, 1]."""
    shrink = 1 + quantile**2 / n
    centre = (rate + quantile**2 / (2 * n)) / shrink
    reach = quantile / shrink * math.sqrt(rate * (1 - rate) / n + quantile**2 / (4 * n**2))
    return max(0.0, min(rate, centre - reach)), min(1.0, max(rate, centre + reach))  # rounding aside, it holds the rate


def t_quantile(degrees: int) -> float:
    """Student's t at the confidence of all intervals, two-sided."""
    return float(t.ppf((1 + CONFIDENCE) / 2, degrees))
