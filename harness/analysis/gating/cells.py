"""Which cells a rule judges: by itself each, as fine as the rule says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.analysis.frames import Run
from harness.analysis.gating.window import settings_of
from harness.analysis.sides import Setting
from harness.config.rules import Rule
from harness.documents import did_you_mean
from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Cell:
    """What one verdict is about. None: all there are."""

    model: str
    sampling: str | None = None
    concurrency: int | None = None
    conversation_id: str | None = None
    turn_index: int | None = None

    def settings(self, known: Iterable[Setting]) -> list[Setting]:
        """The settings it is made of."""
        own = (self.model, self.sampling, self.concurrency)
        return [each for each in known if all(a is None or a == b for a, b in zip(own, each, strict=True))]


def assigned(rules: Sequence[Rule], runs: Sequence[Run]) -> Iterator[tuple[Rule, tuple[Cell, ...]]]:
    """Every rule with the cells it decides on: those of tonight and of the window. Of rules that judge one cell the one
    with the most conditions decides, and of equals the later one.

    Raises UsageError where a rule has a name that no run knows, or conditions that no turn meets together.
    """
    deciding: dict[tuple[Any, ...], int] = {}
    cells = [tuple(_cells(rule, runs)) for rule in rules]
    for rule, own in zip(rules, cells, strict=True):
        if not own:
            raise UsageError(f"gate.rules.{rule.text}", "there is no turn of which all of this is true", "leave it out")
    order = sorted(range(len(rules)), key=lambda number: len(rules[number].where))
    for number in order:
        for cell in cells[number]:
            deciding[rules[number].subject, rules[number].statistic, cell] = number
    for number, (rule, own) in enumerate(zip(rules, cells, strict=True)):
        yield rule, tuple(cell for cell in own if deciding[rule.subject, rule.statistic, cell] == number)


def _cells(rule: Rule, runs: Sequence[Run]) -> Iterator[Cell]:
    where: dict[str, str] = dict(rule.where)
    known: Mapping[str, list[Any]] = {
        **{name: _of_settings(runs, place) for place, name in enumerate(("model", "sampling", "concurrency"))},
        "conversation": list(dict.fromkeys(str(talk["id"]) for run in runs for talk in run.plan["conversations"])),
        "turn": sorted({int(turn) for run in runs for talk in run.plan["conversations"] for turn in talk["turns"]}),
    }
    for axis, value in where.items():
        if value not in map(str, known[axis]):
            remedy = did_you_mean(value, map(str, known[axis]))
            raise UsageError(f"gate.rules.{rule.text}", f"there is no {axis} {value}", remedy)
    settings = [
        setting
        for setting in dict.fromkeys(setting for run in runs for setting in settings_of(run))
        if all(where.get(axis, str(own)) == str(own) for axis, own in zip(_AXES, setting, strict=True))
    ]
    for model, sampling, concurrency in dict.fromkeys(_coarse(rule, setting) for setting in settings):
        for talk in _some(known, where, "conversation", fine="conversation" in rule.per):
            turns = _some(known, where, "turn", fine="turn" in rule.per)
            there = _positions(runs, talk)
            yield from (
                Cell(model, sampling, concurrency, talk, turn) for turn in turns if turn is None or turn in there
            )


_AXES = ("model", "sampling", "concurrency")


def _of_settings(runs: Sequence[Run], place: int) -> list[Any]:
    return list(dict.fromkeys(setting[place] for run in runs for setting in settings_of(run)))


def _coarse(rule: Rule, setting: Setting) -> tuple[str, str | None, int | None]:
    """The setting, or all settings of its model that the conditions leave."""
    if "model" not in rule.per:
        return setting
    where = dict(rule.where)
    return setting[0], where.get("sampling"), int(where["concurrency"]) if "concurrency" in where else None


def _some(known: Mapping[str, list[Any]], where: Mapping[Any, str], axis: str, *, fine: bool) -> list[Any]:
    """The values that make cells of their own."""
    if axis in where:
        return [value for value in known[axis] if str(value) == where[axis]]
    return known[axis] if fine else [None]


def _positions(runs: Sequence[Run], talk: str | None) -> set[int]:
    """The turns of a conversation, or of any."""
    return {
        int(turn)
        for run in runs
        for each in run.plan["conversations"]
        if talk is None or each["id"] == talk
        for turn in each["turns"]
    }
