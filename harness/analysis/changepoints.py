"""Change points: the nights from which on a series of nightly values lies elsewhere than before.

Two steps. *Proposed* are nights by a plain scan, which sets the median of the fortnight before a night against that of
the fortnight from it on, and by `ruptures` where the extra `trend` is installed (KernelCPD with the Gaussian kernel;
Arlot et al., JMLR 20, 2019): that finds what is small but lasts. *Confirmed* is one rule for both, which keeps tables
of many series over many nights quiet: of two neighbouring stretches the means must differ by a t-test at a level
divided by the nights and by the series looked at,

    t = (mean after − mean before) / (s · √((1 + ρ)/(1 − ρ) · (1/n₁ + 1/n₂)))

with s and the autocorrelation ρ of what is left of all nights beside the means of their stretches: nights that follow
each other are alike, and count for less. Single wild nights are drawn in before (Huber). How often this is wrong, and
what it finds, is simulated: `benchmarks/trend_power.py`, told in docs/trend.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from scipy.stats import t

from harness.analysis.stats import CONFIDENCE

Values = npt.NDArray[np.float64]
Detector = Literal["ruptures and running medians", "running medians"]

FEWEST = 10
"""Fewer nights than this are no series: two stretches of `_SHORTEST`."""
ALPHA = 0.002
"""How often a table without any change may show one, were every assumption true."""
_SHORTEST = 5
"""Nights before and after a change point; with the penalty what was best of what was tried."""
_PENALTY = 5.0
_FORTNIGHT = 14
_WORTH_A_LOOK = 3.0
"""Standard errors between two medians that make the plain scan propose a night."""
_WILD = 2.5
"""Standard deviations from the middle of a stretch at which a night is drawn in."""
_SELDOM = 0.95
_MOST_ALIKE = 0.9
"""An autocorrelation that is not believed: there it is a drift, and no steps can be told apart."""
_ROUNDING = 1e-12
"""What differs less, as a share of the largest value, differs by floating-point arithmetic."""
_MAD = 1.4826
"""Median absolute deviation → standard deviation, of normal values."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change point. Positions count the values given; `before` and `after` are means of the stretches on either
    side, in the unit of the values, `shift` their difference with its 95 % interval."""

    first: int
    """The first night that lies elsewhere, most likely; surely (95 %) it is one of `earliest` … `latest`."""
    earliest: int
    latest: int
    before: float
    after: float
    low: float
    high: float

    @property
    def shift(self) -> float:
        return self.after - self.before


def detector() -> Detector:
    """Who proposes change points on this machine."""
    return "ruptures and running medians" if find_spec("ruptures") else "running medians"


def change_points(values: Values, series: int = 1, by: Detector | None = None) -> tuple[Change, ...]:
    """The change points of one of `series` series that are looked at together, none where it has fewer than `FEWEST`
    values. `values` are known, in the order of the nights; logarithms, where shares are what counts.

    Raises ImportError where `by` is ruptures and that is not installed.
    """
    if len(values) < FEWEST or np.ptp(values) == 0:
        return ()
    proposed = _by_running_medians(values)
    if (by or detector()) != "running medians":
        proposed = _apart(_by_ruptures(values / values.std()), proposed)
    found = _Stretches(values, sorted(proposed))
    threshold = ALPHA / (len(values) * series)
    while found.breaks and (worst := max(found.breaks, key=found.p)) is not None and found.p(worst) > threshold:
        found = _Stretches(values, [each for each in found.breaks if each != worst])
    found = found.settled()
    return tuple(found.told(each) for each in found.breaks if found.p(each) <= threshold)


def _by_ruptures(values: Values) -> list[int]:
    import ruptures

    found = ruptures.KernelCPD(kernel="rbf", min_size=_SHORTEST).fit(values.reshape(-1, 1)).predict(pen=_PENALTY)
    return [int(end) for end in found[:-1]]


def _by_running_medians(values: Values) -> list[int]:
    before = _medians(values)[_SHORTEST - 1 : len(values) - _SHORTEST]
    after = _medians(values[::-1])[::-1][_SHORTEST : len(values) - _SHORTEST + 1]
    nights = np.arange(_SHORTEST, len(values) - _SHORTEST + 1)
    scale = _MAD * float(np.median(np.abs(values[nights - 1] - before))) or float(values.std()) / 100
    seen = 1 / np.minimum(nights, _FORTNIGHT) + 1 / np.minimum(len(values) - nights, _FORTNIGHT)
    # A median's standard error is √(π/2) of a mean's.
    scores = np.abs(after - before) / (scale * np.sqrt(math.pi / 2 * seen))
    best_first = np.argsort(-scores, kind="stable")
    return _apart([], nights[best_first[scores[best_first] >= _WORTH_A_LOOK]].tolist())


def _medians(values: Values) -> Values:
    """The median of the fortnight up to each night, of fewer nights at the beginning."""
    few = [float(np.median(values[: night + 1])) for night in range(min(_FORTNIGHT, len(values)) - 1)]
    if len(values) < _FORTNIGHT:
        return np.array([*few, float(np.median(values))])
    return np.concatenate([few, np.median(sliding_window_view(values, _FORTNIGHT), axis=1)])


def _apart(nights: Sequence[int], more: Iterable[int]) -> list[int]:
    """The nights, and of the others, one after the other, what is not beside one that is there already."""
    found = list(nights)
    for night in more:
        if all(abs(night - other) >= _SHORTEST for other in found):
            found.append(night)
    return found


class _Stretches:
    """A series cut in stretches, and what is left of it beside their means."""

    def __init__(self, values: Values, breaks: Sequence[int]) -> None:
        self.breaks = tuple(breaks)
        self._raw = values
        self._values = _drawn_in(values, self.breaks)
        self._edges = (0, *self.breaks, len(values))
        stretches = np.split(self._values, self.breaks)
        self._means = [float(stretch.mean()) for stretch in stretches]
        left = np.concatenate([stretch - stretch.mean() for stretch in stretches])
        self._degrees = len(values) - len(stretches)
        self._variance = float((left**2).sum()) / self._degrees
        self._alike = _alikeness(left, len(stretches))

    def p(self, each: int) -> float:
        """That nothing changed there, two-sided."""
        shift, error, degrees = self._step(each)
        if abs(shift) <= _ROUNDING * float(np.abs(self._raw).max()):
            return 1.0
        if error == 0:
            return 0.0
        return 2 * float(t.sf(abs(shift) / error, degrees))

    def told(self, each: int) -> Change:
        shift, error, degrees = self._step(each)
        reach = error * float(t.ppf((1 + CONFIDENCE) / 2, degrees))
        place = self.breaks.index(each)
        earliest, latest = self._where(each)
        return Change(each, earliest, latest, self._means[place], self._means[place + 1], shift - reach, shift + reach)

    def settled(self) -> _Stretches:
        """The same breaks, each where it parts its two neighbours best."""
        breaks = []
        for place in range(len(self.breaks)):
            costs = self._costs(place)
            breaks.append(min(costs, key=lambda night: costs[night]))
        return _Stretches(self._raw, breaks)

    def _step(self, each: int) -> tuple[float, float, float]:
        """The shift at a break, its standard error, and on how many degrees of freedom."""
        place = self.breaks.index(each)
        before, each, after = self._edges[place : place + 3]
        error = math.sqrt(self._variance * self._alike * (1 / (each - before) + 1 / (after - each)))
        return self._means[place + 1] - self._means[place], error, max(self._degrees / self._alike, 1.0)

    def _costs(self, place: int) -> dict[int, float]:
        """Sum of squares of both stretches round a break, for every night it could be at."""
        start, _, end = self._edges[place : place + 3]
        values = self._values[start:end]
        sums, squares = np.cumsum(values), float((values**2).sum())
        nights = np.arange(_SHORTEST, len(values) - _SHORTEST + 1)
        before, total = sums[nights - 1], sums[-1]
        costs = squares - before**2 / nights - (total - before) ** 2 / (len(values) - nights)
        return dict(zip((start + nights).tolist(), costs.tolist(), strict=True))

    def _where(self, each: int) -> tuple[int, int]:
        """The nights among which the change lies, by the likelihood of each: its ratio to the best is, on either side,
        the maximum of a random walk, so that 2·log of it stays below −2·log(1 − √0.95) in 95 % (Siegmund, Int. Stat.
        Review 56, 1988)."""
        costs = self._costs(self.breaks.index(each))
        within = -2 * math.log(1 - math.sqrt(CONFIDENCE)) * self._variance * self._alike
        likely = [night for night, cost in costs.items() if cost - costs[each] <= within]
        return min(likely), max(likely)


def _drawn_in(values: Values, breaks: Sequence[int]) -> Values:
    """Wild values drawn in to the edge of what is usual within their stretch: one night in twenty at the most, for what
    is so more often – two clocks that take turns – is no accident."""
    stretches = np.split(values, breaks)
    middle = np.concatenate([np.full(len(stretch), np.median(stretch)) for stretch in stretches])
    off = np.abs(values - middle)
    reach = max(_WILD * _MAD * float(np.median(off)), float(np.quantile(off, _SELDOM)))
    drawn: Values = np.clip(values, middle - reach, middle + reach)
    return drawn


def _alikeness(left: Values, stretches: int) -> float:
    """By how much the variance of a mean is larger than that of as many independent nights: (1 + ρ)/(1 − ρ), never
    below 1. Taking means out makes nights look less alike than they are, by about 1/n for each stretch."""
    power = float((left**2).sum())
    if power == 0:
        return 1.0
    n = len(left)
    seen = float((left[1:] * left[:-1]).sum()) / power
    alike = min(max(seen + (1 + 3 * max(seen, 0.0)) * stretches / n, 0.0), _MOST_ALIKE)
    return (1 + alike) / (1 - alike)
