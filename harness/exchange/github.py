"""What GitHub Actions shows of a gate: annotations, and a summary of the step.

An annotation is a line of the log, `::error title=…::message`, in which the runner reads `%`, line ends and, among the
properties, `:` and `,` as its own; so they are written as `%25`, `%0D`, `%0A`, `%3A`, `%2C`. It keeps 10 errors and 10
warnings of a step (and 50 of a job) and drops the rest without a word, so the worst come first and the last tells how
many more there are.

A summary is Markdown in the file that GITHUB_STEP_SUMMARY names. One that is larger than 1 MiB is not shown at all, so
it is cut, and a line says what was cut. (Limits and escapes: docs.github.com, *Workflow commands for GitHub Actions*.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from harness.analysis.verdict import Answer, Gate, Verdict
from harness.exchange.tables import arrow
from harness.report.judged import WORST_FIRST, between, change, counts, value, worst_first
from harness.report.markdown_tables import escaped
from harness.report.units import printable

SUMMARY_BYTES = 2**20
"""All that the commands of one step may write to it."""
_TO_SAY_WHAT_IS_CUT = 4000
"""Bytes kept free for lines about what is left out."""
ANNOTATIONS = 10
"""Of each level, per step."""
_MESSAGE = 4000
"""Characters: the runner cuts a message at 4096, escapes included or not."""
_LEVELS: Mapping[Answer, Literal["error", "warning"]] = {
    "regression": "error",
    "not comparable": "error",
    "suspicion": "warning",
    "cannot tell": "warning",
    "not run": "warning",
}
_TITLES: Mapping[Answer, str] = {
    "regression": "Got worse",
    "not comparable": "Not comparable",
    "suspicion": "May have got worse",
    "cannot tell": "Nobody can tell",
    "not run": "Not run",
    "pass": "Passed",
}
_HEADLINES: Mapping[str, str] = {
    "pass": "✅ Nothing got worse",
    "regression": "❌ Got worse",
    "cannot tell": "⚠️ Nobody can tell",
    "not comparable": "🚫 Not comparable",
    "some failed": "❌ Turns failed",
}
_DIFFERS = ["setting", "field", "baseline_value", "candidate_value", "nights", "remark"]
_FLIPS = ["model", "sampling", "conversation_id", "turn_index", "check", "change"]


def log_lines(gate: Gate) -> list[str]:
    """Lines for the log, worst first: regressions and what is not comparable are errors, what nobody can tell warnings;
    at most `ANNOTATIONS` of each, the last of which counts those that have no line."""
    lines: dict[str, list[str]] = {"error": [], "warning": []}
    if gate.failed:
        lines["error"].append(command("error", "Turns failed", f"{gate.failed} turns were not answered"))
    for verdict in worst_first(gate.verdicts):
        if verdict.answer != "pass":
            level = _LEVELS[verdict.answer]
            title = f"{_TITLES[verdict.answer]}: {verdict.name} of {verdict.cell}"
            lines[level].append(command(level, title, verdict.sentence))
    if not gate.verdicts:
        lines["warning"].append(command("warning", _TITLES["cannot tell"], "there is nothing to judge"))
    return [line for level, each in lines.items() for line in _capped(level, each)]


def command(level: str, title: str, message: str) -> str:
    """One annotation as the runner reads it."""
    title, message = printable(title), printable(message)[:_MESSAGE]
    return f"::{level} title={_property(title)}::{_data(message)}"


def _capped(level: str, lines: Sequence[str]) -> Sequence[str]:
    if len(lines) <= ANNOTATIONS:
        return lines
    more = len(lines) - (ANNOTATIONS - 1)
    return [*lines[: ANNOTATIONS - 1], command(level, f"{more} more", "they are in the summary and in verdict.json")]


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


@dataclass(frozen=True, slots=True)
class _Part:
    """A section of the summary, which may lose its last rows, or all of it."""

    title: str
    head: str
    rows: Sequence[str]
    tail: str = ""


def step_summary(gate: Gate, room: int = SUMMARY_BYTES) -> str:
    """The night as Markdown of at most `room` bytes, what got worse first; nothing where not even its head fits."""
    head = _head(gate)
    left = room - _size(head) - _TO_SAY_WHAT_IS_CUT
    if left < 0:
        return ""
    written, cut = [head], []
    for part in _parts(gate):
        room_for_rows = left - _size(part.head) - _size(part.tail)
        fitting = _fitting(part.rows, room_for_rows)
        if fitting:
            written += [part.head, *part.rows[:fitting], part.tail]
            left = room_for_rows - sum(map(_size, part.rows[:fitting]))
        if fitting < len(part.rows):
            cut.append(_cut(part.title, len(part.rows) - fitting))
    return "".join([*written, *cut])


def _size(text: str) -> int:
    return len(text.encode())


def _fitting(rows: Sequence[str], room: int) -> int:
    """How many of the rows fit."""
    for index, row in enumerate(rows):
        room -= _size(row)
        if room < 0:
            return index
    return len(rows)


def _cut(title: str, n: int) -> str:
    return f"\n*{n} lines of “{title}” are left out: GitHub shows no summary above 1 MiB. verdict.json has all.*\n"


def _head(gate: Gate) -> str:
    told = counts(gate)
    nights = [run.run_id for run in gate.baseline]
    window = f"{len(nights)} nights, {escaped(nights[0])} to {escaped(nights[-1])}" if nights else "no night"
    lines = [
        f"## {_HEADLINES[gate.answer]}: {escaped(gate.candidate.run_id)}",
        "",
        ", ".join(f"{n} × {answer}" for answer, n in told.items()) or "No verdicts",
        "",
        f"Held against {window}. "
        + (f"{gate.failed} turns were not answered. " if gate.failed else "")
        + (f"Confirmed by {', '.join(escaped(run.run_id) for run in gate.confirmed_by)}." if gate.confirmed_by else ""),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _parts(gate: Gate) -> Iterator[_Part]:
    for answer in WORST_FIRST[:-1]:
        yield from _verdicts(answer, gate.of(answer))
    yield from _frame("What else differs", gate.ledger, _DIFFERS)
    yield from _frame("Checks that turned", gate.flips, _FLIPS)
    if gate.notes:
        yield _Part("Notes", "\n### Notes\n\n", [f"- {escaped(note)}\n" for note in gate.notes])
    yield from _verdicts("pass", gate.of("pass"), folded=True)


def _verdicts(answer: Answer, verdicts: Sequence[Verdict], *, folded: bool = False) -> Iterator[_Part]:
    if not verdicts:
        return
    head = _table_head(["what", "where", "baseline", "tonight", "change", "interval", "allowed", "why"])
    title = f"{_TITLES[answer]} ({len(verdicts)})"
    opened = f"\n<details><summary>{title}</summary>\n\n{head}" if folded else f"\n### {title}\n\n{head}"
    yield _Part(_TITLES[answer], opened, [_line(_cells(each)) for each in verdicts], "\n</details>\n" if folded else "")


def _cells(verdict: Verdict) -> list[str]:
    why = "; ".join([verdict.reason, *([f"needed: {verdict.needed}"] if verdict.needed else [])])
    also = f"; also different: {', '.join(verdict.suspects)}" if verdict.suspects else ""
    return [
        verdict.name,
        verdict.cell,
        value(verdict, verdict.baseline),
        value(verdict, verdict.candidate),
        change(verdict, verdict.change),
        between(verdict),
        change(verdict, verdict.margin),
        why + also,
    ]


def _frame(title: str, frame: pd.DataFrame, wanted: Sequence[str]) -> Iterator[_Part]:
    columns = [name for name in wanted if name in frame.columns]
    if not len(frame) or not columns:
        return
    rows = arrow(frame[columns]).to_pylist()
    head = f"\n### {title}\n\n" + _table_head([name.replace("_", " ") for name in columns])
    yield _Part(title, head, [_line([_text(row[name]) for name in columns]) for row in rows])


def _text(of: Any) -> str:
    return "" if of is None else str(of)


def _table_head(names: Sequence[str]) -> str:
    return _line(names) + "|" + " --- |" * len(names) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(escaped(cell) for cell in cells) + " |\n"
