"""Whether tonight is worse than the nights before it: the decision behind every verdict on speed.

What a launch of a cell measured – the mean logarithm of a metric over its turns – is taken as

    value = level of the cell + night effect + launch effect

A *night effect* is shared by all launches of a night: the room is warm, neighbours are busy. No number of launches
averages it away, and only nights tell how large it is. A *launch effect* is what one fresh process has by itself: where
its memory lies, what clock it was given. With W nights in the window, of ΣL launches together, and K launches tonight,
the estimate – tonight's value minus that of the window – has the variance

    SE² = σ_N² (1 + 1/W) + σ_L² (1/K + 1/ΣL)

Both components are estimated by moments (analysis of variance) from the launches, and the values, of the nights of the
window and of a calibration (`Floor`). A value is a mean without its extremes, with Yuen's variance (Biometrika 61,
1974), so that a disturbed launch or night moves little. Neighbouring nights are alike, so that a few of them vary less
than all do; that is corrected for, `ALIKE` being assumed at least. SE² is known from few nights only. The usual way
about this, Student's t with Satterthwaite's degrees of freedom, fails where σ_N² is estimated as nothing; here the
estimate's error is a normal variable with every SE² that the mean squares leave possible (`_Noise`).

Let c be what this error exceeds with the probability `FALSE_ALARMS`, shared by all cells of the family. A margin M ≥ c
is *resolvable*:

    estimate ≤ M     pass
    estimate > M     suspicion; with confirming launches regression, if the estimate from all launches is beyond M and
                     that from the confirming ones beyond M / 2, else pass

c is that of all launches, the confirming ones included: a red night has an estimate beyond c in the end, whatever was
looked at on the way, so that looking twice costs nothing. The second condition is for several disturbed launches at
once. A margin below c cannot be held: a night then passes only where the worsening is at most M at 95 %, and is
suspicious beyond c. How often all of this is wrong is simulated, not assumed: docs/gate.md, benchmarks/gate_power.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtri, fdtri, ndtr, ndtri

Numbers = npt.NDArray[np.float64]
Answer = Literal["pass", "suspicion", "regression", "cannot tell"]

FALSE_ALARMS = 0.01
"""How often a night may be red though nothing changed, all cells together."""
CONFIDENCE = 0.95
"""Of `at_most`, and of what would have been seen."""
ALIKE = 0.5
"""Autocorrelation of neighbouring nights that is reckoned with, unless more of it was measured."""
FEWEST_NIGHTS = 3
"""Fewer, and no calibration, do not tell how much nights differ."""
MOST_LAUNCHES = 200
"""More of them in a night nobody waits for."""
_MOST_ALIKE = 0.75
"""More of it is a trend, which no number of nights in its midst tells the noise of."""
_LAUNCHES = 5
"""Of so many launches the lowest and the highest are left out, of twice as many two of each …"""
_NIGHTS = 8
"""… and of so many nights."""
_UNLIKE = 0.99
"""Confidence that nights differ more than they did in the calibration, at which the window's are believed alone."""


@dataclass(frozen=True, slots=True)
class Floor:
    """How much a cell varies though nothing changes: variances, in squares of what the values are in."""

    launch: float
    """Between launches of one night: σ_L². 0 where no night had several."""
    launch_freedom: float
    between: float
    """Between the values of nights: σ_N² + σ_L² / launches, less what neighbouring nights have in common."""
    nights: int
    launches: float
    """Of a night, harmonic mean."""
    autocorrelation: float | None = None
    """Of the values of neighbouring nights; None where there are too few to tell."""
    drift: float | None = None
    """From one night to the next: the median of all slopes (Theil and Sen); None below three nights."""

    @property
    def alike(self) -> float:
        """The autocorrelation that is reckoned with."""
        return min(max(ALIKE, self.autocorrelation or 0.0), _MOST_ALIKE)

    @property
    def shrunk(self) -> float:
        """What is left of σ_N² in the variance of so few nights that are alike: (n − g) / (n − 1), g being the variance
        of their mean in units of σ_N² / n (Bayley and Hammersley, Supplement to the JRSS 8, 1946)."""
        apart = np.arange(1, self.nights)
        common = 1 + 2 * float(((1 - apart / self.nights) * self.alike**apart).sum())
        return (self.nights - common) / (self.nights - 1) if self.nights > 1 else 1.0

    @property
    def night(self) -> float:
        """σ_N², as moments estimate it: below 0 where nights differ less than their launches explain."""
        return (self.between - self.launch / self.launches) / self.shrunk

    @property
    def night_freedom(self) -> float:
        """Degrees of freedom of `between`: nights that are alike, or left out, tell less."""
        told = _of_normal(self.nights, self.nights // _NIGHTS)[1]
        return told * (1 - self.alike**2) / (1 + self.alike**2)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one night says of one cell, in what the values are in; of logarithms 0.05 is about 5 %."""

    answer: Answer
    change: float
    """Tonight minus the window."""
    low: float | None
    high: float | None
    """Interval of the change that holds for all cells of the family together; None where nothing tells of the noise."""
    at_most: float | None
    """Upper limit of the worsening, one-sided, 95 %, of this cell by itself."""
    margin: float | None
    """How much worse is too much; of `auto` what is resolvable, if that is not more than it may allow."""
    resolvable: float | None
    """The smallest margin that so many launches, confirming ones included, can hold."""
    launches: int
    """Tonight, confirming ones included."""
    nights: int
    """In the window."""
    needed: int | None
    """Launches a night, before any confirming ones, that would make the margin resolvable; None where it is, or where
    no number of them would."""
    reason: str


def trimmed(values: Numbers, one_of: int) -> Numbers:
    """The means along the last axis without the lowest and the highest, one of each per `one_of` values."""
    count = values.shape[-1]
    cut = count // one_of
    found: Numbers = np.sort(values, axis=-1)[..., cut : count - cut].mean(axis=-1)
    return found


def components(nights: Sequence[Numbers]) -> Floor:
    """What nights, the oldest first, tell about the noise of their values, one per launch."""
    squares = freedom = between = 0.0
    for count in {len(night) for night in nights}:
        cut = count // _LAUNCHES
        kept = count - 2 * cut
        if kept > 1:  # Yuen's variance of the trimmed mean, times launches
            alike = np.array([night for night in nights if len(night) == count])
            squares += count / kept * float(_winsorised(alike, cut).sum())
            freedom += (kept - 1) * len(alike)
    level = _levels(nights)
    cut = len(level) // _NIGHTS
    if len(level) > 1:
        between = float(_winsorised(level, cut)) / (len(level) - 1) / _of_normal(len(level), cut)[0]
    return Floor(
        launch=squares / freedom if freedom else 0.0,
        launch_freedom=freedom,
        between=between,
        nights=len(nights),
        launches=len(nights) / sum(1 / len(night) for night in nights),
        autocorrelation=_autocorrelation(level),
        drift=_drift(level),
    )


def _levels(nights: Sequence[Numbers]) -> Numbers:
    """The value of each night."""
    if len({len(night) for night in nights}) == 1:
        return trimmed(np.array(nights), _LAUNCHES)
    return np.array([trimmed(night, _LAUNCHES) for night in nights])


def decide(
    tonight: Numbers,
    window: Sequence[Numbers],
    *,
    margin: float | None,
    worse: Literal[1, -1] = 1,
    family: int = 1,
    floor: Floor | None = None,
    confirm: Numbers | None = None,
    confirm_launches: int = 0,
    least: float = 0.0,
    most: float = math.inf,
) -> Decision:
    """Judge the launches of a night by those of the nights of the window.

    tonight: one value per launch. window: the same of each night, the oldest first. margin: how much worse is too much,
    above 0, or None for `auto`. worse: 1 where more is worse, else −1. family: how many cells are judged in this night.
    confirm: fresh launches of a cell that was suspicious; until there are any, `confirm_launches` says how many there
    would be. least, most: how much `auto` allows at the least, however small the noise, and at the most, however large.

    Raises ValueError where there are no launches tonight, no nights, or some value is no number.
    """
    nights = [np.asarray(night, dtype=np.float64) for night in window]
    fresh = np.asarray([] if confirm is None else confirm, dtype=np.float64)
    own = np.concatenate([np.asarray(tonight, dtype=np.float64), fresh])
    if not len(own) or not nights or not all(len(night) for night in nights):
        raise ValueError("nothing to decide by: a night without launches, or no night")
    if not np.isfinite(np.concatenate([own, *nights])).all():
        raise ValueError("some values are no numbers")
    level = float(trimmed(_levels(nights), _NIGHTS))
    change = float(trimmed(own, _LAUNCHES)) - level
    if max(len(nights), floor.nights if floor else 0) < FEWEST_NIGHTS:
        few = "one night does not" if len(nights) == 1 else f"{len(nights)} nights do not"
        reason = f"{few} tell how much nights differ: {FEWEST_NIGHTS} do, or a calibration"
        return Decision(
            "cannot tell", change, None, None, None, margin, None, len(own), len(nights), None, reason
        )  # fmt: skip
    noise = _Noise(components(nights), floor, sum(map(len, nights)))
    expected = len(own) if len(fresh) else len(own) + confirm_launches
    resolvable = noise.reach(expected, FALSE_ALARMS / family)
    reach = noise.reach(len(own), FALSE_ALARMS / family)
    judged = max(min(resolvable, most), least) if margin is None else margin
    blur = 1e-12 * float(np.abs(own).max())  # equal values, summed in another order
    worse_by = worse * change - blur
    at_most = worse_by + noise.reach(len(own), 1 - CONFIDENCE)
    again = worse * (float(trimmed(fresh, _LAUNCHES)) - level) if len(fresh) else None
    needed = None
    if judged < resolvable:
        needed = noise.needed(judged, FALSE_ALARMS / family, len(own) - len(fresh), len(fresh) or confirm_launches)
    answer, reason = _answer(worse_by, again, judged, resolvable, at_most, needed)
    return Decision(
        answer, change, change - reach, change + reach, at_most, judged, resolvable, len(own), len(nights), needed,
        reason,
    )  # fmt: skip


def resolvable(floor: Floor, launches: int, family: int = 1) -> float:
    """The smallest margin that nights as in a calibration can hold, so many launches each, confirming ones included."""
    return _Noise(floor, None, round(floor.nights * floor.launches)).reach(launches, FALSE_ALARMS / family)


def launches_needed(floor: Floor, margin: float, family: int = 1, confirm_launches: int = 0) -> int | None:
    """The fewest launches a night, before any confirming ones, that make a margin resolvable in nights as in a
    calibration; None where no number of them does."""
    noise = _Noise(floor, None, round(floor.nights * floor.launches))
    return noise.needed(margin, FALSE_ALARMS / family, 0, confirm_launches)


def _answer(
    worse_by: float, again: float | None, margin: float, resolvable: float, at_most: float, needed: int | None
) -> tuple[Answer, str]:
    limit = max(margin, resolvable)
    if worse_by > limit and again is None:
        return "suspicion", "worse than the margin, not confirmed by fresh launches"
    if again is not None and worse_by > limit and again > limit / 2:
        return "regression", "worse than the margin, and seen again by fresh launches"
    unseen = "fresh launches did not see it again" if worse_by > limit else ""
    if margin >= resolvable or at_most <= margin:
        return "pass", unseen
    remedy = f"{needed} launches would" if needed else "no number of launches would, but more nights or an anchor may"
    return "cannot tell", "; ".join(filter(None, [unseen, f"the noise is too large for this margin: {remedy}"]))


class _Noise:
    """SE² as the distribution that the nights of the window, and those of a calibration, leave possible.

    A mean square B with ν degrees of freedom may be of the variance B·ν/χ²_ν, for every χ². From these fiducial values
    of both components (Weerahandi, JASA 88, 1993) come those of SE², in which σ_N² is nowhere below 0.
    """

    def __init__(self, window: Floor, floor: Floor | None, launches: int) -> None:
        known = [window] if floor is None else [window, floor]
        freedom = sum(each.launch_freedom for each in known)
        launch = sum(each.launch * each.launch_freedom for each in known) / freedom if freedom else 0.0
        nights = _believed(window, floor)
        parts = np.array([share / each.shrunk * each.between for share, each in nights])
        of_launches = sum(share / each.shrunk / each.launches for share, each in nights)
        told = np.array([each.night_freedom for _, each in nights])
        between = float(parts.sum())
        degrees = between**2 / float((parts**2 / told).sum()) if between else 1.0
        self._launch = launch * _possible(freedom or 1.0, _OF_LAUNCHES)
        night = np.maximum(between * _possible(degrees, _OF_NIGHTS)[:, None] - of_launches * self._launch, 0.0)
        self._night = (1 + 1 / window.nights) * night
        self._in_window = launches

    def reach(self, launches: int, level: float) -> float:
        """How far off, to one side, an estimate from so many launches tonight is with the probability `level`."""
        error = np.sqrt(self._night + self._launch * (1 / launches + 1 / self._in_window))
        weights = _WEIGHTS[error > 0]
        error = error[error > 0]
        if not len(error):
            return 0.0
        found = -float(ndtri(level)) * math.sqrt(float(weights @ error**2))
        for _ in range(50):  # Newton's method on logarithms: straight for a heavy tail, a parabola for a normal one
            far = found / error
            beyond = float(weights @ ndtr(-far))
            steepness = float(weights @ (far * np.exp(-(far**2) / 2))) / math.sqrt(2 * math.pi) / beyond
            step = math.log(beyond / level) / steepness
            found *= math.exp(min(step, 1.0))
            if abs(step) < 1e-9:
                break
        return found

    def needed(self, margin: float, level: float, launches: int, confirming: int) -> int | None:
        """The fewest launches a night, more than these, of which the margin is resolvable; None where no number is."""
        low, high = launches + 1, MOST_LAUNCHES
        if self.reach(high + confirming, level) > margin:
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.reach(middle + confirming, level) <= margin else (middle + 1, high)
        return low


def _believed(window: Floor, floor: Floor | None) -> list[tuple[float, Floor]]:
    """Whose nights tell of σ_N², and with which share; only such as tell something."""
    if floor is None or floor.night_freedom <= 0:
        return [(1.0, window)]
    if window.night_freedom <= 0:
        return [(1.0, floor)]
    expected = max(floor.night, 0.0) * window.shrunk + floor.launch / window.launches
    if window.between > expected * float(fdtri(window.night_freedom, floor.night_freedom, _UNLIKE)):
        return [(1.0, window)]
    together = window.night_freedom + floor.night_freedom
    return [(each.night_freedom / together, each) for each in (window, floor)]


def _grid(half: int) -> tuple[Numbers, Numbers]:
    """Probabilities, twice as many, denser towards 0 and 1, and the weight of each."""
    edges = np.concatenate([[0.0], np.geomspace(1e-5, 0.5, half)])
    edges = np.concatenate([edges, 1 - edges[-2::-1]])
    return (edges[1:] + edges[:-1]) / 2, np.diff(edges)


_OF_NIGHTS, _WEIGHT_OF_NIGHTS = _grid(20)
_OF_LAUNCHES, _WEIGHT_OF_LAUNCHES = _grid(6)
"""Launches are more than nights, and what they vary by is less in doubt."""
_WEIGHTS = _WEIGHT_OF_NIGHTS[:, None] * _WEIGHT_OF_LAUNCHES


def _possible(freedom: float, chances: Numbers) -> Numbers:
    """ν/χ²_ν at these probabilities."""
    found: Numbers = freedom / chdtri(freedom, chances)
    return found


def _winsorised(values: Numbers, cut: int) -> Numbers:
    """Sums of squares about the mean along the last axis, the `cut` lowest and highest pulled in to the next."""
    held = np.sort(values, axis=-1)
    if cut:
        held = np.clip(held, held[..., [cut]], held[..., [-1 - cut]])
    squares: Numbers = ((held - held.mean(axis=-1, keepdims=True)) ** 2).sum(axis=-1)
    return squares


@lru_cache(maxsize=256)
def _of_normal(count: int, cut: int) -> tuple[float, float]:
    """What a winsorised variance of so many normal values is of their variance, and its degrees of freedom; drawn, as
    there is no closed form."""
    if not cut:
        return 1.0, count - 1.0
    shape = (max(1000, 400_000 // count), count)
    drawn = _winsorised(np.random.default_rng(count).standard_normal(shape), cut) / (count - 1)
    return float(drawn.mean()), float(2 * drawn.mean() ** 2 / drawn.var())


def _autocorrelation(level: Numbers) -> float | None:
    """Of neighbours, corrected for what a short series hides (Kendall, Biometrika 41, 1954); None below eight."""
    if len(level) < 8 or np.ptp(level) == 0:
        return None
    apart = level - level.mean()
    seen = float((apart[1:] * apart[:-1]).sum() / (apart**2).sum())
    return max(-1.0, min(1.0, seen + (1 + 3 * seen) / len(level)))


def _drift(level: Numbers) -> float | None:
    if len(level) < FEWEST_NIGHTS:
        return None
    earlier, later = np.triu_indices(len(level), 1)
    return float(np.median((level[later] - level[earlier]) / (later - earlier)))
