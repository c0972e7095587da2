"""Scores as tables: on a terminal, and as a section of the Markdown page."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich.table import Table
from rich.text import Text

from harness.analysis.frames import Run
from harness.analysis.preferences import Agreement, agreements, by_pair
from harness.analysis.score_summary import by_setting
from harness.analysis.scores import given, scores
from harness.analysis.scoring.table import SCORERS
from harness.report.markdown_tables import LABELS, Cell, Cells, escaped, table
from harness.report.names import add_names, stacked
from harness.report.units import count, interval, number, percent, percents, printable

SCORES_CAPTION = (
    "Scores of replies that there are; the conversations are the sample, 95 % intervals. ↓: lower is better. "
    "Undecided: too little text to tell, or a judge without a verdict. chrF is a diagnostic: overlap with "
    "the gold reply is not being right."
)
PAIRS_CAPTION = (
    "Preferences: a tie is half a win. Inconsistent: the judge preferred another reply when the order was swapped, "
    "which counts as a tie."
)
JUDGE_CAPTION = "A judge is a model that reads what others wrote: its verdicts are opinions, and can be talked into."


@dataclass(frozen=True, slots=True)
class Views:
    """What there is to show of a run's scores."""

    settings: pd.DataFrame
    pairs: pd.DataFrame
    agreements: Sequence[Agreement]

    @classmethod
    def of(cls, run: Run) -> Views:
        found = given(run)
        return cls(by_setting(run, found), by_pair(run, found), agreements(found))

    @property
    def judged(self) -> bool:
        """Whether a judge has said anything of it."""
        judged = pd.concat([self.settings["scorer"], self.pairs["scorer"]])
        return bool(judged.str.startswith("judge").any())


def section(run: Run) -> Iterator[str]:
    """The section of the Markdown page; nothing where nothing was scored."""
    views = Views.of(run)
    if not len(views.settings) and not len(views.pairs):
        return
    yield "## Scores\n"
    if len(views.settings):
        yield table(views.settings, labeled(OF_REPLIES))
        yield SCORES_CAPTION + "\n"
    if len(views.pairs):
        yield table(views.pairs, labeled(OF_PAIRS))
        yield PAIRS_CAPTION + "\n"
    for agreement in views.agreements:
        yield f"- {escaped(agreement_line(agreement))}\n"
    if views.judged:
        yield JUDGE_CAPTION + "\n"


def tables(run: Run) -> Iterator[Table | Text]:
    """The same for a terminal."""
    views = Views.of(run)
    if len(views.settings):
        yield _table(views.settings, OF_REPLIES, SCORES_CAPTION)
    if len(views.pairs):
        yield _table(views.pairs, OF_PAIRS, PAIRS_CAPTION)
    for agreement in views.agreements:
        yield Text(agreement_line(agreement))
    if views.judged:
        yield Text(JUDGE_CAPTION, style="dim")


def listed(runs: Sequence[Run], form: Literal["csv", "json"]) -> str:
    """Every score of some runs, one row each, ending in a line feed."""
    every = pd.concat([scores(run) for run in runs], ignore_index=True)
    if form == "json":
        return every.to_json(orient="records", indent=2) + "\n"
    return every.assign(detail=every["detail"].map(printable)).to_csv(index=False)  # a model said some of it


def agreement_line(found: Agreement) -> str:
    """How far a judge agrees with the votes, in one line."""
    kappa = "undefined (all answers are the same)" if found.kappa is None else f"{found.kappa:.2f}"
    return (
        f"{SCORERS[found.scorer].title} ({found.by}) agrees with {found.agreed} of {found.votes} votes: "
        f"{percent(found.rate)} ({percents(found.low, found.high)}), Cohen's kappa {kappa}; where neither calls it a "
        f"tie, with {found.decided_agreed} of {found.decided}."
    )


def labeled(columns: Cells) -> Cells:
    """The columns with those that say whose score it is behind the first."""
    first, *rest = columns
    return {first: columns[first], **LABELS, **{header: columns[header] for header in rest}}


def _undecided(row: Mapping[Any, Any]) -> str:
    return f" ({row['undecided']} undecided)" if row["undecided"] else ""


def _title(row: Mapping[Any, Any]) -> str:
    scorer = SCORERS[row["scorer"]]
    by = f" ({row['by']})" if row["by"] else ""
    note = ", a diagnostic" if scorer.diagnostic else " ↓" if scorer.direction == "lower" else ""
    return f"{scorer.title}{by}{note}"


def _value(row: Mapping[Any, Any]) -> str:
    if SCORERS[row["scorer"]].kind == "score":
        inside = interval(row["low"], row["high"], number)
        return number(row["mean"]) + (f" ({inside})" if inside else "")
    inside = percents(row["low"], row["high"])
    return percent(row["mean"]) + (f" ({inside})" if inside else "")


def _win_rate(row: Mapping[Any, Any]) -> str:
    inside = percents(row["low"], row["high"])
    return percent(row["win_rate"]) + (f" ({inside})" if inside else "")


def _other(row: Mapping[Any, Any]) -> str:
    where = f"{row['against_run_id']}: " if pd.notna(row["against_run_id"]) else ""
    return f"{where}{row['against_model']} · {row['against_sampling']}"


OF_REPLIES: Cells = {
    "score": Cell("scorer", _title),
    "mean": Cell("mean", _value),
    "replies": Cell("replies", lambda row: count(row["replies"]) + _undecided(row)),
    "conversations": Cell("conversations", lambda row: count(row["conversations"])),
}
OF_PAIRS: Cells = {
    "preferred by": Cell("scorer", _title),
    "against": Cell("against_model", _other),
    "wins": Cell("win_rate", _win_rate),
    "won, tied, lost": Cell("wins", lambda row: f"{row['wins']}, {row['ties']}, {row['losses']}"),
    "inconsistent": Cell("inconsistent", lambda row: count(row["inconsistent"])),
    "no verdict": Cell("no_verdict", lambda row: count(row["no_verdict"])),
}
_TEXTS = {"against"}


def _over(text: str) -> str:
    """A value above its interval, as in the other tables."""
    return re.sub(r" \((?=[^()]*–[^()]*\)$)", "\n(", printable(text))


def _table(rows: pd.DataFrame, columns: Cells, caption: str) -> Table:
    shown = Table(box=None, pad_edge=False, caption=Text(caption), caption_justify="left", header_style="bold")
    records = rows.to_dict("records")
    levels = ["concurrency"] if (rows["concurrency"] > 1).any() else []
    first, *rest = (name for name, cell in columns.items() if {cell.plain(row) for row in records} != {"0"})
    shown.add_column(first, overflow="fold")
    for header in ("model", "sampling"):
        add_names(shown, header, rows[header])
    for header in (level.replace("concurrency", "at a time") for level in levels):
        shown.add_column(header)
    for header in rest:
        words = header in _TEXTS
        shown.add_column(header, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    before = ""
    for row in records:
        title = columns[first].plain(row)
        labels = [str(row[name]) for name in ("model", "sampling", *levels)]
        texts = ["" if title == before else title, *labels, *(columns[header].plain(row) for header in rest)]
        shown.add_row(*(Text((stacked if place in (1, 2) else _over)(text)) for place, text in enumerate(texts)))
        before = title
    return shown
