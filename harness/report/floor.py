"""A calibration in a table: how much numbers differ though nothing changed, and which margins can be held."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.decide import Floor
from harness.analysis.floor import Calibration, Resolution
from harness.analysis.gating.cells import Cell
from harness.report.units import ABSENT, printable

CAPTION = (
    "Launches and runs: standard deviations between launches of a run, and of runs beyond; drift: from run to run. "
    "Resolvable: the smallest margin that so many launches hold, one night in a hundred being red by chance."
)
_MOST_TOLD = 10.0
"""A margin of ten times as much is as good as any larger one."""
_HEADERS = ("rule", "cell", "launches", "runs", "drift", "resolvable", "")


def rows(resolutions: Sequence[Resolution]) -> list[list[str]]:
    """One per rule and cell, under `_HEADERS`."""
    return [
        [
            each.rule.text,
            _where(each.calibrated.cell),
            _spread(each, each.calibrated.floor.launch),
            _spread(each, _night(each.calibrated.floor)),
            ABSENT if each.calibrated.floor.drift is None else _amount(each, each.calibrated.floor.drift, signed=True),
            _amount(each, each.resolvable),
            verdict(each),
        ]
        for each in resolutions
    ]


def verdict(of: Resolution) -> str:
    """Whether the margin of a rule can be held, and what would make it so."""
    if of.holds:
        return "auto: this much" if of.margin is None else "can be held"
    if of.needed is not None:
        return f"cannot be held: {of.needed} launches a night would"
    return "cannot be held by any number of launches: more runs, or an anchor, may"


def show(calibration: Calibration, resolutions: Sequence[Resolution], confirm_launches: int, console: Console) -> None:
    """Print it."""
    anchor = f", relative to {calibration.anchor}" if calibration.anchor else ""
    title = f"{len(calibration.runs)} runs of {calibration.launches} launches{anchor}"
    table = Table(title=f"{title}; a night of {calibration.launches} + {confirm_launches} launches", caption=CAPTION)
    for number, header in enumerate(_HEADERS):
        table.add_column(header, justify="right" if 2 <= number <= 5 else "left")
    for row in rows(resolutions):
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)


def _where(cell: Cell) -> str:
    level = None if cell.concurrency in (None, 1) else f"concurrency {cell.concurrency}"
    turn = None if cell.turn_index is None else f"turn {cell.turn_index}"
    return ", ".join(part for part in (cell.model, cell.sampling, level, cell.conversation_id, turn) if part)


def _night(floor: Floor) -> float:
    return max(floor.night, 0.0)


def _spread(of: Resolution, variance: float) -> str:
    return _amount(of, math.sqrt(variance))


def _amount(of: Resolution, value: float, *, signed: bool = False) -> str:
    """A difference as a share, or in the metric's unit."""
    if of.calibrated.ratio:
        share = math.expm1(min(value, 700.0))
        if share > _MOST_TOLD:
            return f"above {_MOST_TOLD:.0%}"
        return f"{share:+.2%}" if signed else f"{share:.1%}"
    unit = of.rule.metric.unit if of.rule.metric is not None else ""
    return f"{value:+.3g} {unit}" if signed else f"{value:.3g} {unit}"
