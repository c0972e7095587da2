"""What a night plays when its time does not suffice: the most informative settings first, others less or not at all.

Before every launch the time that is left is dealt out. What a launch of a setting takes is known from the launches
before it, so the first one plays everything, unless it runs into the end itself. The settings take their launches in
the order of what they can tell: those that the others are relative to, those that were suspicious the last time, those
whose rules are the least certain, those with rules at all. What is not played is *not run*, which is never a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness.analysis.sides import Setting
from harness.config.plan import Plan
from harness.config.rules import Gating, Rule
from harness.records import Cell
from harness.runner.messages import CellDone, Loaded, LoadFailed, Progress, TurnDone, Warmed, WorkerStarted

Clock = Callable[[], float]


class BudgetSpentError(Exception):
    """The time is over while a conversation was played; raised between two of them."""


class Budget:
    """Deals out `limit_s` seconds from now on. `order` are the settings, the most informative first."""

    def __init__(self, plan: Plan, limit_s: float, order: Sequence[Setting], clock: Clock = time.monotonic) -> None:
        self._plan = plan
        self._order = order
        self._clock = clock
        self._end = clock() + limit_s
        self._load_s: dict[str, float] = {}
        self._play_s: dict[Setting, float] = {}
        """Of the dearest launch so far."""
        self._this_launch: dict[Setting, float] = {}
        self._since = clock()
        self._model = ""
        self._chosen: dict[int, frozenset[Setting]] = {}
        self.cut = False
        """Whether anything was left out."""

    @property
    def left_s(self) -> float:
        """What is left; below 0 once it is over."""
        return self._end - self._clock()

    def wanted(self, cell: Cell) -> bool:
        """Whether a cell of the launch that is about to be made is to be played."""
        if cell.launch not in self._chosen:
            self._chosen[cell.launch] = self._choose(self._plan.launches - cell.launch)
        wanted = setting_of(cell) in self._chosen[cell.launch]
        self.cut = self.cut or not wanted
        return wanted

    def watch(self, event: Progress) -> None:
        """Learn what things take. Raises BudgetSpentError when the time is over, between two conversations."""
        match event:
            case WorkerStarted(model):
                self._model, self._this_launch, self._since = model, {}, self._clock()
            case Loaded() | LoadFailed():
                self._load_s[self._model] = max(self._load_s.get(self._model, 0.0), self._lap())
            case Warmed(sampling, concurrency):
                self._spent((self._model, sampling, concurrency))
            case CellDone(cell):
                self._spent(setting_of(cell))
                if self.left_s <= 0:
                    self.cut = True
                    raise BudgetSpentError
            case TurnDone():
                pass  # it is a part of its conversation

    def _lap(self) -> float:
        before, self._since = self._since, self._clock()
        return self._since - before

    def _spent(self, setting: Setting) -> None:
        self._this_launch[setting] = self._this_launch.get(setting, 0.0) + self._lap()
        self._play_s[setting] = max(self._play_s.get(setting, 0.0), self._this_launch[setting])

    def _choose(self, launches: int) -> frozenset[Setting]:
        """The settings that are played in the next launch, of so many that are left."""
        left = self.left_s
        if left <= 0:
            return frozenset()
        chosen: list[Setting] = []
        for setting in self._order:
            load_s = 0.0 if any(other[0] == setting[0] for other in chosen) else self._load_s.get(setting[0], 0.0)
            each = self._play_s.get(setting, 0.0) + load_s
            fits = launches if each * launches <= left else int(left // each)
            if fits:
                chosen.append(setting)
                left -= fits * each
        return frozenset(chosen)


def setting_of(cell: Cell) -> Setting:
    """The setting a cell belongs to."""
    return cell.model, cell.sampling, cell.concurrency


def by_information(plan: Plan, gating: Gating, before: Mapping[str, Any] | None) -> list[Setting]:
    """The settings of a plan, the most informative first; `before` is the verdict.json of the last night, if any."""
    settings: list[Setting] = [
        (str(spec.label), sampling.name, level)
        for spec in plan.models
        for sampling in plan.samplings
        for level in plan.config.concurrency
    ]
    told = [] if before is None else before["verdicts"]

    def rank(setting: Setting) -> tuple[bool, bool, bool, float]:
        own = [each for each in told if _is_of(each, setting)]
        suspicious = any(each["answer"] in ("suspicion", "regression") for each in own)
        ruled = any(_about(rule, setting) for rule in gating.parsed)
        return setting[0] != gating.anchor, not suspicious, not ruled, -max(map(_uncertainty, own), default=0.0)

    return sorted(settings, key=rank)


def _is_of(verdict: Mapping[str, Any], setting: Setting) -> bool:
    own = (verdict["model"], verdict["sampling"], verdict["concurrency"])
    return all(a is None or a == b for a, b in zip(own, setting, strict=True))


def _about(rule: Rule, setting: Setting) -> bool:
    where: dict[str, str] = dict(rule.where)
    return all(where.get(axis, str(own)) == str(own) for axis, own in
               zip(("model", "sampling", "concurrency"), setting, strict=True))  # fmt: skip


def _uncertainty(verdict: Mapping[str, Any]) -> float:
    """How wide the interval of the change is, as a share; that of what could not be told comes first."""
    low, high = verdict["low"], verdict["high"]
    if verdict["answer"] == "cannot tell" or low is None or high is None:
        return 1.0
    usual = 1.0 if verdict["scale"] == "ratio" else abs(verdict["baseline"] or 1.0)
    return min(1.0, float(high - low) / usual)
