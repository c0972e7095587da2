"""Figures worked out: `e2e_s.p95` or `check_pass_rate` as a number over turns, with its interval, and the gap between
two settings.

Every figure is worked out from one list of values, a `Sample`, whose turns know their conversation. That is enough for
an interval as well: the conversations are the sample, and the jackknife leaves one of them out at a time (Efron and
Stein, Annals of Statistics 9, 1981). With C conversations, θ the figure of all and θ₋c that without conversation c,

    θc = C·θ − (C − 1)·θ₋c        error² = Σ (θc − mean θc)² / (C·(C − 1))        on C − 1 degrees of freedom

For means this is the error of the conversations' means; for percentiles it takes conversations of several turns. It
works on logarithms where the figure is of a quantity, which is compared as a ratio, and on the rate itself otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from harness.analysis.arrays import STATES, Array, View, in_every_launch, view
from harness.analysis.ledger import ledger, passed
from harness.analysis.sides import Side
from harness.analysis.stats import CONVERSATIONS_TO_GENERALISE, Basis, Estimate, centre, pass_rate, t_quantile
from harness.config.figures import ABOUT_REPLIES, Figure

ROUNDING = 1e-9
"""Differences smaller than this come of floating-point arithmetic."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a figure is made of: entries that belong together, one per turn that has the quantity."""

    values: Array
    weights: Array
    """A rate is the sum of the values over that of the weights; 1 everywhere for a quantity."""
    conversation: Array
    """A code, the same in every run of the same conversations."""
    launch: Array
    """A code, another one in every run."""
    turn: Array
    """A code of the run, launch, repeat and turn of the script: the same for all settings of the same runs."""
    draw: Array
    """A code of what was drawn. All launches of a repeat draw alike, and so do all repeats of a greedy turn: they are
    one observation of what the model says, however often it is played."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def observations(self) -> int:
        """How many different draws are behind it."""
        return len(np.unique(self.draw))

    def where(self, kept: npt.NDArray[np.bool_]) -> Sample:
        """The entries the mask says."""
        return Sample(*(getattr(self, field.name)[kept] for field in fields(self)))


def sample(figure: Figure, sides: Sequence[Side]) -> Sample:
    """What the figure of a setting is made of, from its turns in one run or in several of the same conversations.

    A side pins down one model and one sampling, or everything of a run that has no more. Where replies mean nothing,
    because they are forced to a length or come from random weights, no rate about replies has any entries.
    """
    parts = [_part(figure, side) for side in sides]
    sizes = [_size(side) for side in sides]
    launches = np.cumsum([0, *(launches for launches, _ in sizes)])
    turns = np.cumsum([0, *(launches * each for launches, each in sizes)])
    # Runs of one seed draw alike, those of another seed anew; a greedy turn is the same in all of them.
    seeds = [side.run.plan["seed"] for side in sides]
    most = max((each for _, each in sizes), default=0)
    anew = [0 if _greedy(side) else most * seeds.index(seed) for side, seed in zip(sides, seeds, strict=True)]
    return Sample(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.weights for part in parts]),
        np.concatenate([part.conversation for part in parts]),
        np.concatenate([part.launch + start for part, start in zip(parts, launches, strict=False)]),
        np.concatenate([part.turn + start for part, start in zip(parts, turns, strict=False)]),
        np.concatenate([part.draw + start for part, start in zip(parts, anew, strict=True)]),
    )


def shared(ours: Sample, theirs: Sample) -> tuple[Sample, Sample]:
    """Of two settings of the same runs, the turns that have the quantity with both: a setting that fails where the
    work is heavy is otherwise compared by its light turns."""
    return ours.where(np.isin(ours.turn, theirs.turn)), theirs.where(np.isin(theirs.turn, ours.turn))


def value(figure: Figure, found: Sample) -> float | None:
    """The figure; None where no turn has the quantity, or fewer have it than the statistic takes.

    A p50 is that of the reports: the geometric mean of the launches' medians, of the turns that every launch of a run
    has. Everything else is over all turns.
    """
    return None if len(found.values) < figure.least_turns else statistic(figure, found)


def estimate(figure: Figure, found: Sample) -> Estimate:
    """The figure with its 95 % interval over conversations. A maximum or minimum has none: more turns can only raise
    the one and lower the other."""
    number = value(figure, found)
    if number is None or figure.statistic in ("min", "max"):
        return Estimate(number)
    codes = np.unique(found.conversation)
    if figure.is_rate:
        passed: Array = np.bincount(found.conversation, found.values)
        total: Array = np.bincount(found.conversation, found.weights)
        return pass_rate(passed, total, found.observations)
    around = gap(profile(figure, found, codes), None)
    if around is None or number <= 0:
        return Estimate(number, n=len(codes))
    reach = math.exp(t_quantile(around.degrees) * around.error)
    basis: Basis = "conversations" if len(codes) >= CONVERSATIONS_TO_GENERALISE else "few conversations"
    return Estimate(number, number / reach, number * reach, basis, len(codes))


@dataclass(frozen=True, slots=True)
class Profile:
    """A figure as it is compared: a logarithm of a quantity, a rate itself."""

    whole: float
    without: Array
    """Without each of the conversations."""
    each: Array | None = None
    """Of a rate: of each conversation by itself, NaN where it says nothing."""

    def __sub__(self, other: Profile) -> Profile:
        each = None if self.each is None or other.each is None else self.each - other.each
        return Profile(self.whole - other.whole, self.without - other.without, each)


@dataclass(frozen=True, slots=True)
class Gap:
    """How far a setting is from another: a logarithm of a ratio, or points of a rate; its error, and on how many
    degrees of freedom."""

    value: float
    error: float
    degrees: int
    changed: int | None = None
    """Of a rate: in how many conversations there is one at all."""

    def low(self, chance: float) -> float:
        """What the gap exceeds, but for this chance; −∞ where fewer conversations differ in a rate than it takes to
        speak of others: they tell how rare a difference is, and nothing about its size."""
        if self.changed is not None and self.changed < CONVERSATIONS_TO_GENERALISE:
            return -math.inf
        return self.value - float(t.ppf(1 - chance, self.degrees)) * self.error


def profile(figure: Figure, found: Sample, conversations: Array) -> Profile | None:
    """None where the figure is missing, of all conversations or without one of them, or has no logarithm."""
    if value(figure, found) is None:
        return None
    codes = conversations.tolist()
    numbers = [
        statistic(figure, found),
        *(statistic(figure, found.where(found.conversation != code)) for code in codes),
    ]
    if any(number is None or (number <= 0 and not figure.is_rate) for number in numbers):
        return None
    compared = np.array(numbers, dtype=np.float64)
    if not figure.is_rate:
        compared = np.log(compared)
        return Profile(float(compared[0]), compared[1:])
    each = [statistic(figure, found.where(found.conversation == code)) for code in codes]
    return Profile(float(compared[0]), compared[1:], np.array(each, dtype=np.float64))


def gap(ours: Profile | None, theirs: Profile | None = None) -> Gap | None:
    """How far ours is above theirs (or above nothing, for the error of a figure by itself); None where either is
    missing, or there is one conversation only."""
    if ours is None or len(ours.without) < 2:
        return None
    between = ours if theirs is None else ours - theirs
    n = len(between.without)
    pseudo = n * between.whole - (n - 1) * between.without
    changed = None if between.each is None else int((np.abs(np.nan_to_num(between.each)) > ROUNDING).sum())
    return Gap(between.whole, math.sqrt(float(pseudo.var(ddof=1)) / n), n - 1, changed)


def statistic(figure: Figure, found: Sample) -> float | None:
    """The figure of however few entries; None without any."""
    values = found.values
    if not len(values):
        return None
    match figure.statistic:
        case None | "mean":
            total = float(found.weights.sum())
            return float(values.sum()) / total if total else None
        case "p50":
            return centre({launch: values[found.launch == launch] for launch in np.unique(found.launch).tolist()})
        case "min":
            return float(values.min())
        case "max":
            return float(values.max())
    return float(np.percentile(values, float(figure.statistic.removeprefix("p"))))


def _part(figure: Figure, side: Side) -> Sample:
    turns = side.turns
    played = turns.where(turns["state"] != STATES.index("missing"))
    if figure.quantity in ABOUT_REPLIES and turns.babble:
        played = played.where(np.zeros(len(played), dtype=bool))
    if figure.quantity == "check_pass_rate":
        return _checked(side, played)
    if figure.quantity == "failure_rate":
        return _entries(side, played, (played["state"] != STATES.index("done")).astype(np.float64))
    done = played.done
    if figure.quantity == "truncation_rate":
        return _entries(side, done, done["cut_off"])
    values = done[figure.quantity]
    known = ~np.isnan(values)
    if figure.quantity == "completion_tokens":
        known &= values > 0  # a prompt at the limit has no reply to speak of
    told = done.where(known)
    if figure.statistic == "p50":
        told = in_every_launch(told)
    return _entries(side, told, told[figure.quantity])


def _checked(side: Side, played: View) -> Sample:
    """Checks met and checks due of every turn: one that failed, or was not reached, has met none of them."""
    due = ledger(side.run).expected[played.rows]
    checked = due > 0
    return _entries(side, played.where(checked), passed(played)[checked], due[checked])


def _entries(side: Side, turns: View, values: Array, weights: Array | None = None) -> Sample:
    weights = np.ones(len(values)) if weights is None else weights
    launch, place = turns["launch"].astype(np.int64), turns["place"].astype(np.int64)
    drawn = turns["repeat"].astype(np.int64) * _places(side) + place
    draw = place if _greedy(side) else drawn
    return Sample(values, weights, turns["conversation"], launch, launch * _size(side)[1] + drawn, draw)


def _greedy(side: Side) -> bool:
    """Whether every repeat of a turn is the same reply."""
    return {(model, sampling) for model, sampling, _ in side.settings} <= ledger(side.run).greedy


def _places(side: Side) -> int:
    return int(view(side.run)["place"].max(initial=-1)) + 1


def _size(side: Side) -> tuple[int, int]:
    """How many launches a run has, and how many codes of (repeat, turn of the script) each of them takes."""
    launches, repeats = (int(view(side.run)[name].max(initial=-1)) + 1 for name in ("launch", "repeat"))
    return launches, repeats * _places(side)
