"""The first screen: which setting is best at what, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.analysis.frames import Run
from harness.analysis.standings import Against, Contender, Question, Standing, standings
from harness.report.page.tables import Header, Row, Shown, Table
from harness.report.units import ABSENT
from harness.report.verdicts import HELD_AGAINST, Answer, answers, worded


@dataclass(frozen=True, slots=True)
class Best:
    """What one run answers."""

    run_id: str
    answers: tuple[tuple[str, tuple[Answer, ...]], ...]
    """(question, answers)"""
    table: Table | None
    """Every question, asked of all settings; None of a run of one setting."""


def best(run: Run) -> Best:
    """The first screen of a run."""
    found = standings(run).by_setting
    return Best(
        run.run_id,
        tuple((asked, tuple(told)) for asked, told in answers(run)),
        Table("best", "All settings", _CAPTION, _HEADERS, tuple(map(_row, found))) if found else None,
    )


_CAPTION = (
    "The best by its value in the tables below, with its 95 % interval. Told apart are those that are worse beyond "
    "chance, adjusted for how many were looked at; not told apart those that may be as good. Where the two were held "
    "against each other and another did better than the best, that is said beside it."
)
_HEADERS = tuple(
    Header(name, is_text=True) for name in ("question", "best", "value", "told apart from", "not told apart from")
)


def _row(standing: Standing) -> Row:
    value, beside = _valued(standing.question, standing.best)
    better = ", ".join(each.contender.name for each in standing.better)
    cells = (
        (standing.question.text, ""),
        (standing.best.name, f"but {HELD_AGAINST[standing.question.kind]} {better} did better" if better else ""),
        (value, beside),
        (_names(standing, standing.worse), ""),
        (_names(standing, standing.tied), ""),
    )
    return Row("", "", tuple(Shown(text, small, text) for text, small in cells))


def _names(standing: Standing, some: Sequence[Against]) -> str:
    if len(some) > 1 and len(some) == len(standing.others) and not standing.further:
        return f"all {len(some)} others"
    return ", ".join(each.contender.name for each in some) or ABSENT


def _valued(question: Question, contender: Contender) -> tuple[str, str]:
    """The value of a contender, and its interval."""
    shown, estimate = worded(question), contender.estimate
    between = "" if estimate.low is None else f"{shown(estimate.low)} to {shown(estimate.high)}"
    return shown(estimate.value), between
