"""A gate on a terminal: what got worse first, then what else differs, flips and notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.verdict import Answer, Gate, GateAnswer, Verdict
from harness.report.judged import between, change, counts, value, worst_first
from harness.report.units import ABSENT, printable

_MOST_PASSED = 40
"""More that passed would push what did not off the screen; the other formats have them all."""
_MOST_FLIPS = 10
_STYLES: dict[Answer | GateAnswer, str] = {
    "pass": "green",
    "regression": "bold red",
    "not comparable": "red",
    "some failed": "red",
    "suspicion": "yellow",
    "cannot tell": "yellow",
    "not run": "dim",
}
CAPTION = (
    "Change: tonight against the window, with an interval that holds for all cells of the night together; allowed: the "
    "largest change that the rule lets pass."
)


def headline(gate: Gate) -> str:
    """The answer, of which night, against which."""
    return f"{gate.answer}: {gate.candidate.run_id} {against_what(gate)}"


def against_what(gate: Gate) -> str:
    """What a night was held against, and what was answered how often."""
    told = ", ".join(f"{n} {answer}" for answer, n in counts(gate).items()) or "nothing was judged"
    nights = [run.run_id for run in gate.baseline]
    window = f"{len(nights)} nights, {nights[0]} to {nights[-1]}" if len(nights) > 1 else (*nights, "no baseline")[0]
    further = f", confirmed by {', '.join(run.run_id for run in gate.confirmed_by)}" if gate.confirmed_by else ""
    failed = f"; {gate.failed} turns were not answered, and no rule is about them" if gate.failed else ""
    return f"against {window}{further} ({told}){failed}"


def show(gate: Gate, console: Console) -> None:
    """Print it."""
    console.print(Text(printable(headline(gate)), style=_STYLES[gate.answer]))
    bad = [verdict for verdict in worst_first(gate.verdicts) if verdict.answer != "pass"]
    passed = gate.of("pass")
    if gate.verdicts:
        console.print()
        console.print(_verdicts([*bad, *passed[:_MOST_PASSED]]))
        if len(passed) > _MOST_PASSED:
            console.print(Text(f"and {len(passed) - _MOST_PASSED} more that passed", style="dim"))
        console.print(Text(CAPTION, style="dim"))
    for verdict in bad:
        where = Text(f"{printable(verdict.name)} of {printable(verdict.cell)}: ", style=_STYLES[verdict.answer])
        console.print(where.append(printable(why_of(verdict)), style="default"))
    if len(gate.ledger):
        console.print()
        console.print(_ledger(gate))
    if len(gate.flips):
        console.print()
        console.print(_flips(gate))
    for note in gate.notes:
        console.print(Text(printable(f"! {note}"), style="dim"))


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    return table


def _verdicts(verdicts: list[Verdict]) -> Table:
    table = _table("what", "where", "window", "tonight", "change", "allowed", "answer")
    for verdict in verdicts:
        interval = between(verdict)
        sure = Text.assemble(change(verdict, verdict.change), (f"\n{interval}" if interval else "", "dim"))
        cells = [verdict.name, verdict.cell, value(verdict, verdict.baseline), value(verdict, verdict.candidate)]
        allowed = change(verdict, verdict.margin)
        answer = Text(verdict.answer, style=_STYLES[verdict.answer])
        table.add_row(*(Text(printable(cell)) for cell in cells), sure, allowed, answer)
    return table


def why_of(verdict: Verdict) -> str:
    """The reason, with what else differs from the window."""
    return verdict.reason + (f"; also different: {', '.join(verdict.suspects)}" if verdict.suspects else "")


def _ledger(gate: Gate) -> Table:
    names = ["setting", "field", "baseline_value", "candidate_value", "speed", "behaviour", "nights", "remark"]
    table = _table("where", "differs", "window", "tonight", "speed", "behaviour", "nights", "remark")
    for row in gate.ledger[names].astype(object).where(gate.ledger[names].notna(), ABSENT).to_dict("records"):
        style = "red" if "blocker" in (row["speed"], row["behaviour"]) else ""
        table.add_row(*(Text(printable(str(row[name])), style=style) for name in names))
    return table


def _flips(gate: Gate) -> Table:
    table = _table("check", "where", "went")
    for row in gate.flips.head(_MOST_FLIPS).to_dict("records"):
        where = f"{row['model']}, {row['sampling']}, {row['conversation_id']} turn {row['turn_index']}"
        table.add_row(*(Text(printable(str(cell))) for cell in (row["check"], where, plays(row))))
    if len(gate.flips) > _MOST_FLIPS:
        table.caption = f"and {len(gate.flips) - _MOST_FLIPS} more"
    return table


def plays(row: Mapping[Any, Any]) -> str:
    """How a check went: `lost: 30 of 30 plays before, 0 of 3 tonight`."""
    told = [
        f"{row[f'{side}_rate'] * row[f'{side}_times']:.0f} of {row[f'{side}_times']} {when}"
        for side, when in (("baseline", "before"), ("candidate", "tonight"))
    ]
    return f"{row['change']}: {', '.join(told)}"
