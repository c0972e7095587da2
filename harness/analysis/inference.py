"""From a sample of launches or conversations to an effect: its interval, its p-value, and how much more would tell.

Launches: their mean log ratios are few and, as sums over many turns, near to normal; Student's t is used, paired where
launches of both sides took turns in one run, Welch's where they did not.

Conversations: their differences are many-shaped – mostly zero, skewed, bounded – and what holds whatever their shape is
the sign flip: if the sides do not differ, every difference might as well have had the other sign. It asks for no more
than a symmetric distribution, which exchanging equal sides gives. Its inversion is Hartigan's theorem of typical
values (Journal of the American Statistical Association 64, 1969): of n differences that lie symmetrically about θ, the
means of all 2ⁿ − 1 non-empty subsets cut the line into 2ⁿ parts that hold θ with equal probability. So one array of
subset means yields both, and the interval excludes 0 exactly where p ≤ 0.05. All subsets up to `EXACT` conversations,
a seeded sample of them beyond, and below what a sample can tell a bound on the p-value of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2, false_discovery_control, nbinom, nct, norm, t, ttest_1samp

from harness.analysis.stats import CONFIDENCE, CONVERSATIONS_TO_GENERALISE

Numbers = npt.NDArray[np.float64]

POWER = 0.8
"""How often a difference as large as the margin is found by a sample of the size that is said to be needed."""
EXACT = 14
"""Conversations whose sign flips, 2¹⁴ of them, are all looked at; beyond, as many are drawn."""
MANY = 500
"""Conversations from which on the t-test is used: their mean is normal, and the flips agree with it."""
_TAIL = 1 / (4 * float(norm.sf(math.sqrt(2))))
"""The sum of numbers with random signs is beyond x standard deviations this many times as often as a normal variable at
most, 3.18 (Bentkus and Dzindzalieta, Bernoulli 21, 2015)."""
_LEVEL = 1 - CONFIDENCE
_PILOT = 0.75
"""A standard deviation known from few launches is taken at the upper end of its one-sided interval of this confidence
(Browne, Statistics in Medicine 14, 1995): planned with the value itself, the next sample is too small half the time,
and finds 68 % instead of 80 % after a pilot of two. At 0.75 no size of pilot falls short (tests/test_inference.py)."""
_MOST = 1_000_000
"""Beyond so many nobody goes on measuring."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What a sample says about a mean difference."""

    value: float
    low: float | None = None
    high: float | None = None
    """95 %, two-sided. None where the sample cannot bear an interval."""
    p: float | None = None
    """That there is no difference, two-sided."""
    n: int = 0
    """Size of the sample, of the smaller side where the sides have one each."""
    sd: float | None = None
    """Of the differences; of one side's own values where the sides have a sample each. None below two."""
    degrees: int = 0
    """Of freedom of `sd`."""
    common: float = 0.0
    """Of conversations: the difference that more than half of them have; 0 where there is none such."""
    apart: int = 0
    """Conversations whose difference is another one."""


def over_launches(baseline: Numbers, candidate: Numbers, paired: bool) -> Inference:
    """The mean difference of two sides, from one value per launch of each (logarithms, so that it is a ratio).

    Paired: launch k of one side belongs to launch k of the other, t on n − 1 degrees of freedom. Else Welch's t. No
    interval where a side has one launch: nothing is known of the next one.
    """
    value = float(candidate.mean() - baseline.mean())
    n = min(len(baseline), len(candidate))
    if n < 2:
        return Inference(value, n=n)
    if paired:
        sd = _sd(candidate - baseline)
        return _student(value, sd / math.sqrt(n), n - 1, n, sd, n - 1)
    variances = [_sd(side) ** 2 / len(side) for side in (baseline, candidate)]
    freedom = [len(side) - 1 for side in (baseline, candidate)]
    error = math.sqrt(sum(variances))
    squares = sum(variance**2 / degrees for variance, degrees in zip(variances, freedom, strict=True))
    welch = sum(variances) ** 2 / squares if squares > 0 else sum(freedom)
    pooled = math.sqrt((_sd(baseline) ** 2 * freedom[0] + _sd(candidate) ** 2 * freedom[1]) / sum(freedom))
    return _student(value, error, welch, n, pooled, sum(freedom))


def _student(value: float, error: float, freedom: float, n: int, sd: float, degrees: int) -> Inference:
    if error == 0:  # a clock that does not vary, as that of a scripted backend
        return Inference(value, value, value, float(value == 0), n, sd, degrees)
    reach = float(t.ppf(1 - _LEVEL / 2, freedom)) * error
    p = 2 * float(t.sf(abs(value) / error, freedom))
    return Inference(value, value - reach, value + reach, p, n, sd, degrees)


def _sd(values: Numbers) -> float:
    """Standard deviation; 0 where nothing but rounding makes the values differ."""
    found = float(values.std(ddof=1))
    return 0.0 if found <= 1e-12 * max(1.0, float(np.abs(values).max())) else found


def over_conversations(differences: Numbers, largest: float) -> Inference:
    """The mean of one difference per conversation; `largest` is how large a single one could be.

    No interval below `CONVERSATIONS_TO_GENERALISE`. Where fewer conversations than that are apart from what most have
    in common – no difference, or one and the same – sign flips know next to nothing of those that were not seen: with
    none of n, up to 1 − 0.05^(1/n) of all conversations may be apart (the rule of three), the less the more of them
    were seen. The ends of the interval take that share to differ by the `largest`; but towards 0 from a difference that
    most have in common, not to differ: a rare one of the other sign is what neither it nor p could see. Twenty
    conversations without a difference do not show that there is none, six that lost all do not show that all do.
    """
    n = len(differences)
    value = float(differences.mean())
    sd, degrees = (_sd(differences), n - 1) if n > 1 else (None, 0)
    largest = max(largest, float(np.abs(differences).max()))
    common, apart = _common(differences, largest)
    if n < CONVERSATIONS_TO_GENERALISE:
        return Inference(value, n=n, sd=sd, degrees=degrees, common=common, apart=apart)
    low, high, p = _flipped(differences) if n <= MANY else _many(differences)
    unseen = (1 - (1 - CONFIDENCE) ** (1 / n)) * max(0.0, 1 - apart / CONVERSATIONS_TO_GENERALISE)
    low = min(low, (1 - unseen) * low - unseen * (largest if common <= 0 else 0.0))
    high = max(high, (1 - unseen) * high + unseen * (largest if common >= 0 else 0.0))
    return Inference(value, max(low, -largest), min(high, largest), p, n, sd, degrees, common, apart)


def _common(differences: Numbers, largest: float) -> tuple[float, int]:
    """The difference that more than half have in common, else 0; how many have another."""
    blur = 1e-12 * largest
    for common in (float(np.median(differences)), 0.0):  # what more than half have is the median
        apart = int((np.abs(differences - common) > blur).sum())
        if 2 * apart < len(differences):
            break
    return common, apart


def _flipped(differences: Numbers) -> tuple[float, float, float]:
    """Interval and p-value by sign flips."""
    subsets, sizes = _subsets(len(differences))
    sums = subsets @ differences
    parts = len(sums) + 1
    beyond = math.floor(_LEVEL / 2 * parts + 1e-9)  # CONVERSATIONS_TO_GENERALISE leave at least one
    means = np.partition(sums / sizes, (beyond - 1, -beyond))
    blur = 1e-12 * float(np.abs(differences).sum())  # sums of the same numbers in another order
    smaller = min(int((sums <= blur).sum()), int((sums >= -blur).sum()))
    p = min(1.0, 2 * (1 + smaller) / parts)
    if not smaller and len(differences) > EXACT:  # rarer than what is drawn can tell
        p = min(p, 2 * _TAIL * float(norm.sf(abs(differences.sum()) / np.linalg.norm(differences))))
    return float(means[beyond - 1]), float(means[-beyond]), p


@lru_cache(maxsize=4)
def _subsets(n: int) -> tuple[Numbers, Numbers]:
    """Non-empty subsets of n things, one per row as zeros and ones, and their sizes: all of them, or 2^EXACT − 1 at
    random."""
    if n <= EXACT:
        subsets = ((np.arange(1, 2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)
    else:
        drawn = np.random.default_rng(n).integers(0, 2, size=(2**EXACT - 1, n))
        subsets = drawn[drawn.any(axis=1)].astype(np.float64)
    return subsets, subsets.sum(axis=1)


def _many(differences: Numbers) -> tuple[float, float, float]:
    if _sd(differences) == 0:
        value = float(differences.mean())
        return value, value, float(value == 0)
    found = ttest_1samp(differences, 0.0)
    interval = found.confidence_interval(CONFIDENCE)
    return float(interval.low), float(interval.high), float(found.pvalue)


def adjusted(values: Sequence[float | None]) -> list[float | None]:
    """The p-values of a table, adjusted for all that was looked at (q, by Benjamini and Hochberg, Journal of the Royal
    Statistical Society B 57, 1995): of the rows with q ≤ 0.05, 5 % are there by chance. What has no p has no q."""
    told = [value for value in values if value is not None]
    found = iter(false_discovery_control(told).tolist() if told else [])
    return [None if value is None else next(found) for value in values]


def launches_needed(found: Inference, shift: float, paired: bool, level: float = _LEVEL) -> int | None:
    """How many launches of each side find a difference of `shift` with `POWER` in a test at `level`.

    None where one launch leaves the spread of launches unknown.
    """
    if found.sd is None:
        return None
    sides = 1 if paired else 2
    return _needed(found.sd, found.degrees, shift, sides, lambda n: float(t.isf(level / 2, sides * (n - 1))))


def conversations_needed(found: Inference, shift: float, largest: float, level: float = _LEVEL) -> int | None:
    """How many conversations find a mean difference of `shift` with `POWER` in a test at `level`, and are enough for a
    sign-flip test to reach that level at all. Where most do not differ they are also so many that no more than `shift`
    of all can differ unseen, and that enough of them differ where those that do are as far apart as was seen.

    None for a single conversation.
    """
    if found.sd is None:
        return None
    flips = max(CONVERSATIONS_TO_GENERALISE, 1 + math.ceil(math.log2(1 / level) - 1e-9))
    needed = _needed(found.sd, found.degrees, shift, 1, lambda n: _of_flips(n, level), flips)
    if found.common != 0 or found.apart >= CONVERSATIONS_TO_GENERALISE:
        return needed
    none_seen = math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-min(shift / largest, 0.5)))
    if found.apart == 0:
        return max(needed, none_seen)
    enough_seen = _holding(CONVERSATIONS_TO_GENERALISE, found.apart / found.n)
    squares = found.sd**2 * found.degrees + found.value**2 * found.n
    differing = min(1.0, shift / math.sqrt(squares / found.apart))
    return max(needed, min(none_seen, enough_seen), _holding(flips, differing))


def _holding(differing: int, share: float) -> int:
    """The conversations that hold so many that differ, with `POWER`, where `share` of all do."""
    return differing + int(nbinom.ppf(POWER, differing, share))


def _of_flips(n: int, level: float) -> float:
    """How large t has to be for n conversations to reach `level`; infinite where it cannot be."""
    by_t = float(t.isf(level / 2, n - 1))
    if not EXACT < n <= MANY or level >= 2 / 2**EXACT:
        return by_t
    bound = float(norm.isf(level / 2 / _TAIL))  # of sum / √(sum of squares), see `_flipped`
    return max(by_t, bound * math.sqrt((n - 1) / (n - bound**2))) if n > bound**2 else math.inf


def _needed(sd: float, degrees: int, shift: float, sides: int, critical: Callable[[int], float], least: int = 2) -> int:
    """The smallest sample (of each side), of `least` or more, whose t for `shift` is beyond the `critical` one of its
    size with `POWER`."""
    sd *= math.sqrt(degrees / float(chi2.ppf(1 - _PILOT, degrees)))

    def finds(n: int) -> bool:
        beyond = critical(n)
        if sd == 0 or math.isinf(beyond):
            return not math.isinf(beyond)
        return bool(nct.sf(beyond, sides * (n - 1), shift / (sd * math.sqrt(sides / n))) >= POWER)

    high = least
    while not finds(high) and high < _MOST:
        high *= 2
    low = max(least, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle + 1, high)
    return high
