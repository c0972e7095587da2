"""A comparison on a terminal: what differs besides, the answers, what flipped."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.compare import Comparison
from harness.report import answers
from harness.report.names import stacked
from harness.report.units import printable

_MOST_FLIPS = 20
"""More would push the answers off the screen; the other formats have them all."""
_MOST_SAID = 300
"""Characters of a reply that are shown beside a flip."""
_SIDE_BY_SIDE = 100
"""Columns of a terminal from which on two replies fit beside each other."""
_STYLES = {"different": "bold", "equivalent": "green", "cannot tell": "dim", "not comparable": "red"}


def show(comparison: Comparison, console: Console) -> None:
    """Print a comparison: fairness first, then the answers for each pair of settings, then flips."""
    console.print(Text(printable(answers.heading(comparison)), style="bold"))
    console.print()
    console.print(Text("Fairness", style="bold"))
    console.print(_ledger(comparison))
    for pair, rows in comparison.rows.groupby("pair", sort=False):
        console.print()
        console.print(_answers(rows))
        where = answers.by_turn(comparison.by_turn[comparison.by_turn["pair"] == pair])
        for line in (*answers.footing(rows), *([where] if where else []), *answers.not_compared(rows)):
            console.print(Text(printable(line), style="dim"))
    console.print(Text(answers.ANSWERS, style="dim"))
    if len(comparison.flips):
        console.print()
        console.print(_flips(comparison.flips, console.width))


def _table(caption: str, *headers: str) -> Table:
    table = Table(box=None, pad_edge=False, caption=Text(caption), caption_justify="left", header_style="bold")
    for header in headers:
        table.add_column(Text(stacked(header)), overflow="fold")
    return table


def _ledger(comparison: Comparison) -> Table | Text:
    if not len(comparison.ledger):
        return Text("Nothing differs besides the thing compared.", style="green")
    table = _table(answers.FAIRNESS, "differs", "baseline", "candidate", "speed", "behaviour", "remark")
    for row in answers.differences(comparison):
        style = "red" if "blocker" in (row["speed"], row["behaviour"]) else ""
        cells = [*(row[name] for name in ("field", "baseline_value", "candidate_value")), *_weights(row), row["remark"]]
        table.add_row(*(Text(printable(cell), style=style) for cell in cells))
    return table


def _weights(row: dict[str, str]) -> list[str]:
    return [row[name] or "–" for name in ("speed", "behaviour")]


def _answers(rows: pd.DataFrame) -> Table:
    first = rows.head(1).to_dict("records")[0]
    table = Table(box=None, pad_edge=False, title=Text(printable(answers.sides(first)), style="bold"),
                  title_justify="left", header_style="bold")  # fmt: skip
    table.add_column("metric", overflow="fold")
    for header in (first["baseline"], first["candidate"], "effect", "q"):
        table.add_column(Text(stacked(header)), justify="right", overflow="fold")
    table.add_column("answer", overflow="fold")
    for row in rows[rows["effect"].notna()].to_dict("records"):
        interval = answers.between(row)
        table.add_row(
            answers.TITLES[row["metric"]],
            answers.value(row, "baseline_value"),
            answers.value(row, "candidate_value"),
            Text.assemble(answers.effect(row), ("\n" + interval if interval else "", "dim")),
            answers.q(row),
            Text(printable(answers.answer(row)), style=_STYLES[row["answer"]]),
        )
    return table


def _flips(flips: pd.DataFrame, width: int) -> Table:
    rows = flips.head(_MOST_FLIPS).to_dict("records")
    caption = answers.FLIPS
    if len(flips) > len(rows):
        caption += f" The first {len(rows)} of {len(flips)}; --format markdown or json has all."
    beside = width >= _SIDE_BY_SIDE
    names = ["baseline", "candidate"] if flips["pair"].nunique() > 1 else [rows[0]["baseline"], rows[0]["candidate"]]
    table = _table(caption, "flip", *(names if beside else ["what was said"]))
    for row in rows:
        where = f"{row['conversation_id']} turn {row['turn_index']}\n{row['check']}\n{answers.rates(row)}"
        where += f"\n{answers.sides(row)}" if flips["pair"].nunique() > 1 else ""
        replies = {side: _short(answers.said(row, side)) for side in ("baseline", "candidate")}
        told = replies.values() if beside else ["\n".join(f"{row[side]}: {reply}" for side, reply in replies.items())]
        table.add_row(*(Text(printable(cell)) for cell in (where, *told)))
        table.add_row("")
    return table


def _short(reply: str) -> str:
    return reply if len(reply) <= _MOST_SAID else f"{reply[:_MOST_SAID]}…"
