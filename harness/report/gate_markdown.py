"""A gate as a Markdown page: the same as on a terminal, with every verdict, and both replies of every flip in full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from harness.analysis.verdict import Gate, Verdict
from harness.report.gate import CAPTION, headline, plays, why_of
from harness.report.judged import between, change, value, worst_first
from harness.report.markdown import fenced
from harness.report.markdown_tables import escaped


def gate_markdown(gate: Gate) -> str:
    """The page, ending in a line feed. What models said is fenced, all other foreign text escaped."""
    return "\n".join(_page(gate)).rstrip("\n") + "\n"


def _page(gate: Gate) -> Iterator[str]:
    yield f"# {escaped(headline(gate))}\n"
    bad = [verdict for verdict in worst_first(gate.verdicts) if verdict.answer != "pass"]
    if bad:
        yield "## What did not pass\n"
        yield _verdicts(bad)
    if gate.of("pass"):
        yield "## What passed\n"
        yield _verdicts(gate.of("pass"))
    if gate.verdicts:
        yield CAPTION + "\n"
    if len(gate.ledger):
        yield "## What differs from the window\n"
        names = ["setting", "field", "baseline_value", "candidate_value", "speed", "behaviour", "nights", "remark"]
        headers = ["where", "differs", "window", "tonight", "speed", "behaviour", "nights", "remark"]
        rows = gate.ledger[names].astype(object).where(gate.ledger[names].notna(), "")
        yield _table(headers, ([str(cell) for cell in row] for row in rows.itertuples(index=False)))
    if len(gate.flips):
        yield "## Checks that turned\n"
        for row in gate.flips.to_dict("records"):
            where = f"{row['model']}, {row['sampling']}, {row['conversation_id']} turn {row['turn_index']}"
            yield f"### {escaped(str(row['check']))} – {escaped(where)}\n"
            yield escaped(plays(row)) + "\n"
            for side, name in (("baseline", "Before"), ("candidate", "Tonight")):
                yield f"{name}:\n"
                yield fenced(_said(row[f"{side}_reply"], row[f"{side}_detail"]))
    if gate.notes:
        yield "## Notes\n"
        yield "\n".join(f"- {escaped(note)}" for note in gate.notes) + "\n"


def _said(reply: object, detail: object) -> str:
    if isinstance(reply, str):
        return reply
    return f"no reply: {detail if isinstance(detail, str) and not pd.isna(detail) else 'not reached'}"


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    headers = ["what", "where", "window", "tonight", "change", "interval", "allowed", "answer", "why"]
    return _table(
        headers,
        (
            [
                verdict.name,
                verdict.cell,
                value(verdict, verdict.baseline),
                value(verdict, verdict.candidate),
                change(verdict, verdict.change),
                between(verdict),
                change(verdict, verdict.margin),
                verdict.answer,
                why_of(verdict),
            ]
            for verdict in verdicts
        ),
    )


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [[escaped(cell) for cell in line] for line in (headers, *rows)]
    lines = [cells[0], ["---"] * len(headers), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
