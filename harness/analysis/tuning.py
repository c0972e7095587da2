"""Which settings a tuning study need not play again, which are on the front, and which one it recommends.

A setting stops
- where it breaks a limit clearly: its figure is beyond the bound and so is the figure's whole interval, over six
  conversations or more (a maximum beyond its bound, or a minimum, is clear at once: more turns cannot mend it);
- where it is dominated beyond its uncertainty: a setting on the front is better in one objective for certain, and by
  its values worse in none by more than the margin. Certain is what an interval over at least six conversations says at
  a level of

      0.05 / objectives / (settings to choose from − 1) / (rungs after which settings stop)

  so that a setting that is as good as those of the front is lost with a chance of at most 5 % in the whole study
  (Bonferroni). What cannot be told apart from the front goes on; and at least a share of the settings does, those that
  fewest others beat.

The default never stops: everything is held against it. Quantities of settings that were played in different processes
are compared by way of the default, which was played in all of them.

What failed has no time and no reply, so a setting that fails where the work is heavy looks the faster for it. A setting
that fails more turns than the default is neither on the front nor recommended, and where turns failed it is held
against the default over those that both have answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from harness.analysis.arrays import STATES
from harness.analysis.figures import ROUNDING, Gap, Profile, estimate, gap, profile, sample, shared, value
from harness.analysis.pareto import front
from harness.analysis.sides import Side
from harness.analysis.stats import CONVERSATIONS_TO_GENERALISE, Estimate
from harness.config.figures import Figure, Limit, Objective

CHANCE = 0.05
"""Of losing a given setting that should have been kept."""


@dataclass(frozen=True, slots=True)
class Goals:
    """What a study is after."""

    objectives: tuple[Objective, ...]
    limits: tuple[Limit, ...]
    margin: float
    """What makes no difference: a share of a quantity, or points of a rate."""

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Of objectives, then of limits, each once."""
        every = (*(objective.figure for objective in self.objectives), *(limit.figure for limit in self.limits))
        return tuple(dict.fromkeys(every))

    def margin_of(self, figure: Figure) -> float:
        """The margin as gaps are measured: points of a rate, a logarithm otherwise."""
        return self.margin if figure.is_rate else math.log(1 + self.margin)


@dataclass(frozen=True)
class Trial:
    """A setting and everything it has played."""

    name: str
    parameters: Mapping[str, Any]
    sides: tuple[Side, ...]
    """One per run, in the order in which they were played."""

    @property
    def turns(self) -> int:
        return sum(len(side.turns) for side in self.sides)

    @cached_property
    def conversations(self) -> int:
        return len(np.unique(self.sides[0].turns["conversation"]))

    def beside(self, default: Trial) -> tuple[Side, ...]:
        """What the default played in the same runs."""
        runs = {side.run.run_id for side in self.sides}
        return tuple(side for side in default.sides if side.run.run_id in runs)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a setting stands."""

    name: str
    parameters: Mapping[str, Any]
    runs: tuple[str, ...]
    turns: int
    figures: Mapping[str, Estimate]
    """By name, of every objective and limit."""
    compared: Mapping[str, float | None]
    """By name, of every objective: what settings are held against each other by (`compared`)."""
    broken: tuple[str, ...]
    """Limits that its values do not keep."""
    fails_more: bool
    """Whether it failed, or never reached, more turns than the default did beside it."""
    on_front: bool
    """Whether no other setting that may be chosen is better in one objective and worse in none, by their values."""


def standings(trials: Sequence[Trial], goals: Goals, default: Trial) -> tuple[Standing, ...]:
    """How settings that have played the same rungs stand among each other."""
    figures = [
        {figure.name: estimate(figure, sample(figure, trial.sides)) for figure in goals.figures} for trial in trials
    ]
    broken = [tuple(limit.text for limit in goals.limits if not _keeps(limit, found)) for found in figures]
    objectives = [
        {objective.figure.name: compared(objective.figure, trial, default) for objective in goals.objectives}
        for trial in trials
    ]
    fail = [unanswered(trial.sides) > unanswered(trial.beside(default)) for trial in trials]
    unknown = [_lacks(number, trials, figures, goals) for number in range(len(trials))]
    names = [objective.figure.name for objective in goals.objectives]
    values = pd.DataFrame([[found[name] for name in names] for found in objectives], columns=names, dtype="Float64")
    within = [not any(why) for why in zip(broken, fail, unknown, strict=True)]
    best = front(values[within], {objective.figure.name: objective.better for objective in goals.objectives})
    return tuple(
        Standing(
            trial.name,
            trial.parameters,
            tuple(side.run.run_id for side in trial.sides),
            trial.turns,
            figures[index],
            objectives[index],
            broken[index],
            fail[index],
            bool(best.get(index, False)),
        )
        for index, trial in enumerate(trials)
    )


def unanswered(sides: Sequence[Side]) -> int:
    """How many turns failed or were not reached."""
    states = [STATES.index("failed"), STATES.index("not_reached")]
    return sum(int(np.isin(side.turns["state"], states).sum()) for side in sides)


def compared(figure: Figure, trial: Trial, default: Trial) -> float | None:
    """The figure of a setting as it is held against those of others: over all its turns where the default has these and
    no others, else what the default has, shifted by what the two differ by over the turns that both have. None where
    there are none."""
    own, beside = sample(figure, trial.sides), sample(figure, trial.beside(default))
    ours, theirs = shared(own, beside)
    if len(ours) == len(own) and len(theirs) == len(beside):
        return value(figure, own)
    here, there, whole = value(figure, ours), value(figure, theirs), value(figure, beside)
    if here is None or there is None or whole is None:
        return None
    if figure.is_rate:
        return whole + here - there
    return whole * here / there if there else None


def _lacks(number: int, trials: Sequence[Trial], figures: Sequence[Mapping[str, Estimate]], goals: Goals) -> bool:
    """Whether the figure of a limit is missing that another setting has after no more turns."""
    others = [each for trial, each in zip(trials, figures, strict=True) if trial.turns <= trials[number].turns]
    names = [limit.figure.name for limit in goals.limits]
    return any(
        figures[number][name].value is None and any(other[name].value is not None for other in others) for name in names
    )


def stops(
    trials: Sequence[Trial], found: Sequence[Standing], goals: Goals, default: Trial, chance: float, keep: float
) -> dict[str, str]:
    """The settings that need not go on, each with the reason; `found` are the standings of the trials."""
    others = [(trial, standing) for trial, standing in zip(trials, found, strict=True) if trial.name != default.name]
    stopped = {}
    for trial, standing in others:
        reason = _breaks(trial, standing, goals)
        if reason is not None:
            stopped[trial.name] = reason
    if default.conversations < CONVERSATIONS_TO_GENERALISE:
        return stopped
    profiles = {trial.name: _profiles(trial, goals, default) for trial in trials}
    rivals = [standing.name for standing in found if standing.on_front]
    beaten = {}
    for trial, _ in others:
        if trial.name not in stopped:
            by = [
                rival
                for rival in rivals
                if rival != trial.name and dominated(profiles[trial.name], profiles[rival], goals, chance)
            ]
            if by:
                beaten[trial.name] = by
    room = len(trials) - len(stopped) - math.ceil(keep * len(trials))
    worst_first = sorted(beaten, key=lambda name: -len(beaten[name]))
    for name in worst_first[: max(room, 0)]:
        stopped[name] = f"dominated by {beaten[name][0]}"
    return stopped


def level(objectives: int, settings: int, rungs: int) -> float:
    """The chance that is left to one comparison of a study, so that `CHANCE` holds for each of its settings."""
    return CHANCE / objectives / max(settings - 1, 1) / max(rungs - 1, 1)


@dataclass(frozen=True, slots=True)
class Choice:
    """The setting that a study recommends, and why, a sentence each."""

    name: str
    reasons: tuple[str, ...]


def choose(found: Sequence[Standing], goals: Goals, default: str) -> Choice | None:
    """The recommended one of the settings that were played to the end; None where none is within the limits.

    The objectives are gone through in their order: of the settings left, those stay that are within the margin of the
    best of them. The default is recommended where it is among the last of them; otherwise the one of them that is best
    in the first objective, and of those in the next: nothing that may be chosen is better in one and worse in none.
    """
    left = [each for each in found if _eligible(each)]
    if not left:
        return None
    reasons = [f"Within the limits: {len(left)} of the {len(found)} settings that were played to the end."] * bool(
        goals.limits
    )
    for objective in goals.objectives:
        best = min(left, key=lambda each: _cost(each, objective))
        reach = _cost(best, objective) + goals.margin_of(objective.figure) + ROUNDING
        near = [each for each in left if _cost(each, objective) <= reach]
        reasons.append(
            f"{objective.figure.name}: {len(near)} of {len(left)} are within the margin of the best, {best.name}."
        )
        left = near
    if any(each.name == default for each in left):
        *before, last = (objective.figure.name for objective in goals.objectives)
        among = f"of those within the margin of the best in {', then '.join(before)}, " if before else ""
        where = f" in {last}" if before else ""
        return Choice(
            default, (*reasons, f"The default is among them: {among}nothing is better beyond the margin{where}.")
        )
    chosen = min(left, key=lambda each: tuple(_cost(each, objective) for objective in goals.objectives))
    if len(left) > 1:
        reasons.append(f"Of these {len(left)} it is on the front, and best in {goals.objectives[0].figure.name}.")
    return Choice(chosen.name, tuple(reasons))


def _eligible(standing: Standing) -> bool:
    """Whether a setting may be chosen: it fails no more than the default, and its figures are known and within the
    limits."""
    known = [*(each.value for each in standing.figures.values()), *standing.compared.values()]
    return not standing.broken and not standing.fails_more and all(number is not None for number in known)


def _cost(standing: Standing, objective: Objective) -> float:
    """An objective as something to be low, on the scale of gaps."""
    number = standing.compared[objective.figure.name]
    assert number is not None, "only settings with a value are chosen from"
    if not objective.figure.is_rate:
        number = math.log(number) if number > 0 else -math.inf
    return number if objective.better == "lower" else -number


def _keeps(limit: Limit, found: Mapping[str, Estimate]) -> bool:
    number = found[limit.figure.name].value
    return number is None or limit.keeps(number)


def _breaks(trial: Trial, standing: Standing, goals: Goals) -> str | None:
    """Why a setting is out of the question, as far as that is clear."""
    for objective in goals.objectives:
        figure = objective.figure
        if standing.figures[figure.name].value is None and not len(sample(figure, trial.sides).values):
            return f"no turn of it has a {figure.quantity}"
    for limit in goals.limits:
        found = standing.figures[limit.figure.name]
        if found.value is None or limit.keeps(found.value):
            continue
        final = limit.figure.statistic == ("max" if limit.better == "lower" else "min")
        nearest = found.low if limit.better == "lower" else found.high
        clear = found.basis == "conversations" and nearest is not None and not limit.keeps(nearest)
        if final or clear:
            return f"breaks {limit.text}"
    return None


def _profiles(trial: Trial, goals: Goals, default: Trial) -> list[Profile | None]:
    """Of every objective; a quantity relative to the default's in the same runs."""
    codes = np.arange(default.conversations)
    found: list[Profile | None] = []
    for objective in goals.objectives:
        figure = objective.figure
        ours, theirs = sample(figure, trial.sides), sample(figure, trial.beside(default))
        if not figure.is_rate:
            ours, theirs = shared(ours, theirs)
        own = profile(figure, ours, codes)
        if not figure.is_rate:
            anchor = profile(figure, theirs, codes)
            own = own - anchor if own is not None and anchor is not None else None
        found.append(own)
    return found


def dominated(ours: Sequence[Profile | None], rivals: Sequence[Profile | None], goals: Goals, chance: float) -> bool:
    """Whether the rival is better in some objective for certain, and by its values worse in none beyond the margin."""
    certain = False
    for objective, own, other in zip(goals.objectives, ours, rivals, strict=True):
        lost = _loss(objective, own, other)
        if lost is None or lost.value < -goals.margin_of(objective.figure) - ROUNDING:
            return False
        certain = certain or lost.low(chance) > ROUNDING
    return certain


def _loss(objective: Objective, own: Profile | None, rival: Profile | None) -> Gap | None:
    """How much worse than its rival a setting is in an objective."""
    if own is None or rival is None:
        return None
    return gap(own, rival) if objective.better == "lower" else gap(rival, own)
