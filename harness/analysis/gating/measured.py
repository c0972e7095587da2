"""Verdicts on what was measured: speed and memory.

A speed is judged as a ratio, on logarithms; memory likewise where the margin is in per cent, and in bytes where it is
in bytes. All of these cells of a night are one family (`decide`): a night is red by chance no more often than one cell
would be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.analysis.decide import Decision, Floor, decide
from harness.analysis.gating.cells import Cell
from harness.analysis.gating.values import Block, ByLaunch, Nothing, Numbers, numbers, relative_to
from harness.analysis.gating.window import Against, Night, by_sitting
from harness.analysis.sides import Setting
from harness.analysis.verdict import Answer, Verdict
from harness.config.rules import Gating, Rule
from harness.errors import UsageError

Floors = Callable[[Rule, Cell], Floor | None]
"""What a calibration knows of the noise of a cell."""
MOST_BY_AUTO = math.log(1.5)
"""A margin of `auto` never lets anything get worse by more than half as much again: noise as large as that is no reason
to pass it."""
LEAST_BY_AUTO = math.log(1.01)
"""Nor is it less than one per cent: nights that are alike to the last digit make no alarm of the next."""
_LARGEST = 700.0
"""The logarithm of about the largest number there is."""


@dataclass
class Measured:
    """The cells of one night, measured: their numbers are found first, so that it is known how many are judged."""

    gating: Gating
    settings: Mapping[Setting, Against]
    confirm: Mapping[Setting, tuple[Night, ...]]
    """Further runs, beside tonight."""
    floors: Floors
    _blocks: dict[Setting, Block] = field(default_factory=dict)

    def verdicts(self, asked: Sequence[tuple[Rule, Cell]]) -> list[Verdict]:
        """One for each rule and cell, in their order. Raises UsageError where a rule is about a metric that no turn of
        any night has."""
        found = [(rule, cell, self._numbers(rule, cell)) for rule, cell in asked]
        for rule in dict.fromkeys(rule for rule, _, _ in found):
            _refuse(rule, [each for of, _, each in found if of is rule])
        family = sum(isinstance(each, Numbers) for _, _, each in found)
        return [
            self._judged(rule, cell, each, family) if isinstance(each, Numbers) else each
            if isinstance(each, Verdict) else told(rule, cell, "cannot tell", each.reason)
            for rule, cell, each in found
        ]  # fmt: skip

    def values(
        self, rule: Rule, cell: Cell
    ) -> tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[np.float64]], float | None] | None:
        """What decides on a cell: one number per launch of every run, tonight's last, as they are compared; the same
        with the runs of one sitting together; and the margin (None: `auto`). None where there are no numbers."""
        found = self._numbers(rule, cell)
        if not isinstance(found, Numbers):
            return None
        scale = _Scale.of(rule, found)
        runs = [scale.of_launches(run) for run in (*found.nights.values(), found.tonight)]
        begun, tonight = self._begun(cell, found)
        return runs, by_sitting(runs, [*begun, tonight]), scale.margin

    def _begun(self, cell: Cell, found: Numbers) -> tuple[list[datetime], datetime]:
        """When the nights of the numbers were begun, and tonight."""
        nights = [night for setting in cell.settings(self.settings) for night in self.settings[setting].nights]
        begun = {night.run.run_id: night.run.begun for night in nights}
        return [begun[run] for run in found.nights], nights[0].work.pair.candidate.run.begun

    def _numbers(self, rule: Rule, cell: Cell, *, confirmed: bool = False) -> Numbers | Nothing | Verdict:
        settings = cell.settings(self.settings)
        unheld = unheld_by(rule, cell, [self.settings[setting] for setting in settings], "speed")
        if unheld is not None:
            return unheld
        memory = rule.kind == "memory"
        blocks = [self._block(setting) for setting in settings]
        found = numbers(blocks, cell, rule.subject, rule.statistic, memory=memory, confirmed=confirmed)
        anchor = self._anchor(rule, confirmed=confirmed) if rule.kind == "speed" else None
        if anchor is None or isinstance(found, Nothing):
            return found
        return relative_to(found, anchor) if isinstance(anchor, Numbers) else Nothing(f"the anchor: {anchor.reason}")

    def _block(self, setting: Setting) -> Block:
        if setting not in self._blocks:
            nights = self.settings[setting].comparable("speed")
            self._blocks[setting] = Block.of(nights, self.confirm.get(setting, ()))
        return self._blocks[setting]

    def _anchor(self, rule: Rule, *, confirmed: bool = False) -> Numbers | Nothing | None:
        """What the anchor measured of the same metric, over all of its turns."""
        if self.gating.anchor is None:
            return None
        everything = Cell(self.gating.anchor)
        settings = everything.settings(self.settings)
        if not settings or any(not self.settings[setting].comparable("speed") for setting in settings):
            return Nothing(f"{self.gating.anchor} was not played tonight and in the window")
        blocks = [self._block(setting) for setting in settings]
        return numbers(blocks, everything, rule.subject, None, confirmed=confirmed)

    def _judged(self, rule: Rule, cell: Cell, found: Numbers, family: int) -> Verdict:
        scale = _Scale.of(rule, found)
        further: Numbers | None = None
        decision = self._decided(rule, cell, found, scale, family)
        if decision.answer == "suspicion" and all(self.confirm.get(each) for each in cell.settings(self.settings)):
            again = self._numbers(rule, cell, confirmed=True)
            if isinstance(again, Numbers) and any(again.further.values()):
                further = again
                decision = self._decided(rule, cell, again, scale, family)
        found = further or found
        shown = found.absolute or found
        runs = [self.settings[setting] for setting in cell.settings(self.settings)]
        bad = decision.answer in ("suspicion", "regression")
        return Verdict(
            rule=rule.text,
            kind=rule.kind,
            metric=rule.subject,
            statistic=rule.statistic,
            **_place(cell),
            answer=decision.answer,
            reason=_reason(decision, found, confirmed=further is not None, asked=bool(self.confirm)),
            baseline=scale.middle(shown.nights.values()),
            candidate=scale.middle([shown.tonight, *shown.further.values()]),
            change=scale.shown(decision.change),
            low=scale.shown(decision.low),
            high=scale.shown(decision.high),
            margin=scale.worse_by(decision.margin),
            unit=rule.metric.unit if rule.metric is not None else "",
            scale="ratio" if scale.ratio else "difference",
            at_most=scale.worse_by(decision.at_most),
            resolvable=scale.worse_by(decision.resolvable),
            launches=decision.launches,
            nights=decision.nights,
            needed=decision.needed,
            suspects=tuple(dict.fromkeys(name for run in runs for name in run.suspects("speed"))) if bad else (),
        )

    def _decided(self, rule: Rule, cell: Cell, found: Numbers, scale: _Scale, family: int) -> Decision:
        confirm = [scale.of_launches(run) for run in found.further.values()]
        nights = [scale.of_launches(night) for night in found.nights.values()]
        return decide(
            scale.of_launches(found.tonight),
            by_sitting(nights, *self._begun(cell, found)),
            margin=scale.margin,
            worse=1 if scale.worse > 0 else -1,
            family=family,
            floor=self.floors(rule, cell),
            confirm=np.concatenate(confirm) if confirm else None,
            confirm_launches=self.gating.confirm_launches,
            least=LEAST_BY_AUTO,
            most=MOST_BY_AUTO if scale.ratio else math.inf,
        )


@dataclass(frozen=True, slots=True)
class _Scale:
    """On what numbers are compared: logarithms, or as they are."""

    ratio: bool
    worse: int
    """1 where more is worse, else −1."""
    margin: float | None
    """How much worse is too much; None for auto."""

    @classmethod
    def of(cls, rule: Rule, found: Numbers) -> _Scale:
        assert rule.metric is not None, "only metrics are measured"
        worse = 1 if rule.metric.direction == "lower" else -1
        margin = rule.margin
        if margin is None or margin.relative:
            return cls(True, worse, None if margin is None else worse * math.log1p(worse * margin.amount))
        if rule.kind == "memory":
            return cls(False, worse, margin.amount)
        usual = cls(True, worse, None).middle((found.absolute or found).nights.values())
        share = margin.amount / usual
        if worse < 0 and share >= 1:
            fact = f"{rule.subject} is {usual:.3g} {rule.metric.unit} in the window, and cannot fall by as much"
            raise UsageError(f"gate.rules.{rule.text}", fact, "write a smaller margin, or one in per cent")
        return cls(True, worse, worse * math.log1p(worse * share))

    def of_launches(self, found: ByLaunch) -> npt.NDArray[np.float64]:
        values = np.array(list(found.values()), dtype=np.float64)
        return np.log(values) if self.ratio else values

    def middle(self, runs: Iterable[ByLaunch]) -> float:
        """Of all launches, each run weighing the same, in the unit of the metric."""
        value = float(np.mean([self.of_launches(run).mean() for run in runs]))
        return math.exp(value) if self.ratio else value

    def shown(self, value: float | None) -> float | None:
        """A change as verdicts tell it."""
        if value is None or not self.ratio:
            return value
        return math.exp(min(value, _LARGEST))

    def worse_by(self, value: float | None) -> float | None:
        """The change of a worsening."""
        return None if value is None else self.shown(self.worse * value)


def _reason(decision: Decision, found: Numbers, *, confirmed: bool, asked: bool) -> str:
    """Why, with how much it rests on."""
    parts = [decision.reason or "within the margin"]
    if decision.answer == "suspicion" and asked and not confirmed:
        parts.append("the further launches did not play it")
    if found.left_out:
        parts.append(f"{found.left_out} of {found.left_out + found.turns} turns are not the same work in all nights")
    if found.set_aside:
        parts.append(f"without {', '.join(found.set_aside)}, with too few turns in common")
    return "; ".join(parts)


def _refuse(rule: Rule, found: Sequence[Numbers | Nothing | Verdict]) -> None:
    unmeasured = [each for each in found if isinstance(each, Nothing) and not each.measured]
    if unmeasured and len(unmeasured) == len(found):
        remedy = "on a CPU host_rss_bytes is the figure" if rule.kind == "memory" else "leave it out"
        raise UsageError(f"gate.rules.{rule.text}", f"{unmeasured[0].reason}, tonight or in the window", remedy)


def _place(cell: Cell) -> dict[str, Any]:
    return {name: getattr(cell, name) for name in cell.__slots__}


def told(rule: Rule, cell: Cell, answer: Answer, reason: str, **values: Any) -> Verdict:
    """A verdict of a rule on a cell."""
    unit = rule.metric.unit if rule.metric is not None else "turns"
    scale = "ratio" if rule.kind == "speed" else "difference"
    about = {"metric": rule.subject, "statistic": rule.statistic, "unit": unit, "scale": scale}
    return Verdict(**{"rule": rule.text, "kind": rule.kind, **about, **_place(cell), "answer": answer,
                      "reason": reason, **values})  # fmt: skip


def unheld_by(rule: Rule, cell: Cell, settings: Sequence[Against], lane: str) -> Verdict | None:
    """The verdict on a cell that cannot be held against anything; None where it can."""
    gone = [each for each in settings if not each.planned]
    if gone or not _plays(settings, cell):
        return told(rule, cell, "cannot tell", "in the newest night of the window, and not in tonight's plan")
    for each in settings:
        if each.tonight is None:
            return told(rule, cell, "not run", f"{each.missing} turns were not played: harness run --resume")
    if not any(each.had for each in settings):
        return told(rule, cell, "cannot tell", "no night of the window has it")
    for each in settings:
        if not each.comparable(lane):
            return told(rule, cell, "not comparable", "; ".join(each.blockers(lane)) or "no night has it")
    return None


def _plays(settings: Sequence[Against], cell: Cell) -> bool:
    """Whether tonight's plan has the turns of the cell."""
    talks = [talk for each in settings if each.tonight for talk in each.tonight.run.plan["conversations"]]
    return any(
        cell.conversation_id in (None, talk["id"]) and (cell.turn_index is None or cell.turn_index in talk["turns"])
        for talk in talks
    ) or not any(each.tonight for each in settings)
