"""What a recommended setting is worth beside the default, on conversations and draws that it was not chosen on.

The setting that did best among many did so partly by luck, so its figures from the search flatter it. These do not,
and are the ones to quote. Both settings are played in the same processes, on equal draws.

What is compared, and chosen by, is the figure itself (`figures`), over the turns that have it with both settings: the
two values, the change from one to the other, and the interval of that change are all of these turns. A setting that
fails more of them than the default is not called better, and does not stand.

A rate is one of all checks, or of all turns, as in the reports, so a conversation of more turns weighs more. With r the
rate of a conversation, w the checks or turns that it has and W their mean over the conversations, the change is the
mean of w·(r − r of the default)/W over conversations, and its interval that of `inference.over_conversations`.

A quantity has replies as long as they came: its difference varies with the conversations, and with the processes.
Either has an interval – the jackknife of `figures`, and Student's over the differences within each launch – and the
wider one counts. Under six conversations, or with a quantity in one launch, nothing is claimed; nor of a maximum or a
minimum, which says nothing of what more turns would bring.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.analysis.figures import ROUNDING, Gap, Sample, estimate, gap, profile, sample, shared, statistic
from harness.analysis.frames import Run
from harness.analysis.inference import over_conversations
from harness.analysis.sides import Side
from harness.analysis.stats import CONFIDENCE, CONVERSATIONS_TO_GENERALISE, Estimate
from harness.analysis.tuning import Goals, unanswered
from harness.config.figures import Figure, Objective

Answer = Literal["better", "not worse", "worse", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The recommended setting against the default in one figure."""

    figure: Figure
    default: Estimate
    candidate: Estimate
    """Of the turns that have it with both."""
    low: float | None
    high: float | None
    """Where candidate / default (of a rate: candidate − default) lies with 95 % confidence; None where nothing is
    claimed."""
    answer: Answer
    why: str = ""
    """What keeps it from being told, if anything does."""

    @property
    def change(self) -> float | None:
        """candidate / default, or candidate − default of a rate."""
        before, after = self.default.value, self.candidate.value
        if before is None or after is None or (before == 0 and not self.figure.is_rate):
            return None
        return after - before if self.figure.is_rate else after / before


@dataclass(frozen=True, slots=True)
class Kept:
    """A limit on conversations that were held out; None where the figure is missing."""

    limit: str
    figure: Figure
    default: Estimate
    candidate: Estimate
    kept: bool | None
    surely: bool
    """Whether its whole interval keeps it."""
    kept_by_default: bool | None


@dataclass(frozen=True, slots=True)
class Validation:
    """A setting, judged."""

    run_id: str
    candidate: str
    default: str
    conversations: int
    launches: int
    turns: int
    """Of each setting."""
    failed: int
    """Turns of the candidate that failed or were not reached."""
    failed_by_default: int
    differences: tuple[Difference, ...]
    """By objective; where the default itself was chosen, of it against itself."""
    limits: tuple[Kept, ...]

    @property
    def answer(self) -> Answer:
        """Over all objectives: worse where any is, cannot tell where any cannot; better where one is and the rest are
        not worse. The default is not worse than itself."""
        if self.candidate == self.default:
            return "not worse"
        answers = [each.answer for each in self.differences]
        order: tuple[Answer, ...] = ("worse", "cannot tell", "better")
        return next((answer for answer in order if answer in answers), "not worse")

    @property
    def stands(self) -> bool:
        """Whether the choice is upheld: it fails no more turns than the default, breaks no limit that the default is
        not known to break too, and is not worse for certain than a default within the limits."""
        if self.failed > self.failed_by_default:
            return False
        if any(each.kept is False and each.kept_by_default is not False for each in self.limits):
            return False
        return self.answer != "worse" or any(each.kept_by_default is False for each in self.limits)


def validate(run: Run, candidate: str, default: str, goals: Goals) -> Validation:
    """Judge the candidate by a run that played it and the default."""
    ours, theirs = Side(run, sampling=candidate), Side(run, sampling=default)
    differences = [_difference(objective, ours, theirs, goals) for objective in goals.objectives]
    limits = []
    for limit in goals.limits:
        mine, other = (estimate(limit.figure, sample(limit.figure, [side])) for side in (ours, theirs))
        kept, by_default = (None if each.value is None else limit.keeps(each.value) for each in (mine, other))
        surely = all(end is None or limit.keeps(end) for end in (mine.low, mine.high))
        limits.append(Kept(limit.text, limit.figure, other, mine, kept, surely, by_default))
    return Validation(
        run_id=run.run_id,
        candidate=candidate,
        default=default,
        conversations=len(np.unique(ours.turns["conversation"])),
        launches=len(np.unique(ours.turns["launch"])),
        turns=len(ours.turns),
        failed=unanswered([ours]),
        failed_by_default=unanswered([theirs]),
        differences=tuple(differences),
        limits=tuple(limits),
    )


def _difference(objective: Objective, ours: Side, theirs: Side, goals: Goals) -> Difference:
    figure, margin = objective.figure, goals.margin_of(objective.figure)
    mine, other = shared(sample(figure, [ours]), sample(figure, [theirs]))
    figures = (estimate(figure, other), estimate(figure, mine))
    low, high, why = _of_rate(mine, other) if figure.is_rate else _of_quantity(figure, mine, other)
    if low is None or high is None:
        return Difference(figure, *figures, None, None, "cannot tell", why)
    worst, best = (-high, -low) if objective.better == "lower" else (low, high)
    shown = (low, high) if figure.is_rate else (math.exp(low), math.exp(high))
    if worst >= -margin and unanswered([ours]) > unanswered([theirs]):
        return Difference(figure, *figures, *shown, "cannot tell", "it fails more turns than the default")
    if worst > 0:
        return Difference(figure, *figures, *shown, "better")
    if worst >= -margin:
        return Difference(figure, *figures, *shown, "not worse")
    if best < -margin:
        return Difference(figure, *figures, *shown, "worse")
    more = "conversations" if figure.is_rate else "conversations or launches"
    if figure.is_rate and margin:
        least = math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - margin) - ROUNDING)
        more += f" ({least} at least, where none of them is worse)"
    why = f"the interval reaches beyond the margin; more {more} would narrow it"
    return Difference(figure, *figures, *shown, "cannot tell", why)


def _of_rate(mine: Sample, other: Sample) -> tuple[float | None, float | None, str]:
    """(low and high of the difference; or None twice, and why), of the same turns."""
    codes, which = np.unique(mine.conversation, return_inverse=True)
    if len(codes) < CONVERSATIONS_TO_GENERALISE:
        return None, None, _few(len(codes))
    whole = np.bincount(which, mine.weights)
    met = np.bincount(which, mine.values) - np.bincount(np.searchsorted(codes, other.conversation), other.values)
    weight = whole / whole.mean()
    points = met / whole.mean()
    points[np.abs(points) < ROUNDING] = 0.0  # sums of the same shares in another order
    found = over_conversations(points, float(weight.max()))
    if found.low is None or found.high is None:
        return None, None, _few(len(codes))
    return max(found.low, -1.0), min(found.high, 1.0), ""


def _few(conversations: int) -> str:
    return f"{conversations} {'conversation says' if conversations == 1 else 'conversations say'} nothing about others"


def _of_quantity(figure: Figure, mine: Sample, other: Sample) -> tuple[float | None, float | None, str]:
    """(low and high of the logarithm of the ratio; or None twice, and why), of the same turns."""
    if figure.statistic in ("min", "max"):
        return None, None, f"a {figure.statistic}imum says nothing of what more turns would bring"
    codes, launches = np.unique(mine.conversation), np.unique(mine.launch).tolist()
    if len(codes) < CONVERSATIONS_TO_GENERALISE:
        return None, None, _few(len(codes))
    if len(launches) < 2:
        return None, None, "one launch says nothing about the next"
    talks = gap(profile(figure, mine, codes), profile(figure, other, codes))
    processes = _over_launches(figure, mine, other, launches)
    if talks is None or processes is None:
        return None, None, f"there is no {figure.name} of both settings"
    chance = (1 - CONFIDENCE) / 2
    reach = max(each.value - each.low(chance) for each in (talks, processes))
    return talks.value - reach, talks.value + reach, ""


def _over_launches(figure: Figure, mine: Sample, other: Sample, launches: list[int]) -> Gap | None:
    """The mean of the gaps within the launches."""
    found = []
    for launch in launches:
        ours, theirs = (statistic(figure, each.where(each.launch == launch)) for each in (mine, other))
        if not ours or not theirs or ours < 0 or theirs < 0:
            return None
        found.append(math.log(ours / theirs))
    return Gap(float(np.mean(found)), float(np.std(found, ddof=1)) / math.sqrt(len(found)), len(found) - 1)
