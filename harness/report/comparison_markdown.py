"""A comparison as a Markdown page: the same as on a terminal, with every flip and both replies in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from harness.analysis.compare import Comparison
from harness.report import answers
from harness.report.markdown import fenced
from harness.report.markdown_tables import escaped


def comparison_markdown(comparison: Comparison) -> str:
    """The page, ending in a line feed. What models said is fenced, all other foreign text escaped."""
    return "\n".join(_page(comparison)).rstrip("\n") + "\n"


def _page(comparison: Comparison) -> Iterator[str]:
    yield f"# {escaped(answers.heading(comparison))}\n"
    yield "## Fairness\n"
    if len(comparison.ledger):
        names = ["field", "baseline_value", "candidate_value", "speed", "behaviour", "remark"]
        headers = ["differs", "baseline", "candidate", "speed", "behaviour", "remark"]
        yield _table(headers, ([row[name] for name in names] for row in answers.differences(comparison)))
        yield answers.FAIRNESS + "\n"
    else:
        yield "Nothing differs besides the thing compared.\n"
    if comparison.notes:
        yield "## Beware\n"
        yield "\n".join(f"- {escaped(note)}" for note in comparison.notes) + "\n"
    yield "## Answers\n"
    for _, rows in comparison.rows.groupby("pair", sort=False):
        yield from _answers(rows)
    yield answers.ANSWERS + "\n"
    if len(comparison.by_turn):
        yield "## By turn\n"
        yield _breakdown(comparison.by_turn, "turn_index", "turn")
        yield answers.BY_TURN + "\n"
    if len(comparison.flips):
        yield f"## Flips: {len(comparison.flips)}\n"
        yield answers.FLIPS + "\n"
        for row in comparison.flips.to_dict("records"):
            where = f"{row['conversation_id']}, turn {row['turn_index']}: {row['check']}"
            yield f"### {escaped(where)}\n"
            yield escaped(f"{answers.sides(row)} · {answers.rates(row)}") + "\n"
            for side in ("baseline", "candidate"):
                yield escaped(str(row[side])) + ":\n"
                yield fenced(answers.said(row, side))


def _answers(rows: pd.DataFrame) -> Iterator[str]:
    first = rows.head(1).to_dict("records")[0]
    yield f"### {escaped(answers.sides(first))}\n"
    headers = ["metric", str(first["baseline"]), str(first["candidate"]), "effect", "95 %", "q", "answer"]
    yield _table(
        headers,
        (
            [
                answers.TITLES[row["metric"]],
                answers.value(row, "baseline_value"),
                answers.value(row, "candidate_value"),
                answers.effect(row),
                answers.between(row),
                answers.q(row),
                answers.answer(row),
            ]
            for row in rows[rows["effect"].notna()].to_dict("records")
        ),
    )
    for line in (*answers.footing(rows), *answers.not_compared(rows)):
        yield escaped(line) + "\n"


def _breakdown(frame: pd.DataFrame, key: str, title: str) -> str:
    told = frame.assign(scale="ratio", unit="s")
    return _table(
        ["sides", title, "metric", "turns", "effect", "95 %", "q", "answer"],
        (
            [
                answers.sides(row),
                str(row[key]),
                answers.TITLES[row["metric"]],
                str(row["turns"]),
                answers.effect(row),
                answers.between(row),
                answers.q(row),
                row["answer"],
            ]
            for row in told.to_dict("records")
        ),
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[escaped(cell) for cell in line] for line in (headers, *rows)]
    lines = [cells[0], ["---"] * len(headers), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
