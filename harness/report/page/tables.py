"""The tables of the page: of which frame, with which columns, and every cell with what it is sorted by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.context_limit import limits_met
from harness.analysis.frames import Run
from harness.analysis.growth import growth
from harness.analysis.length_limit import bitten
from harness.analysis.notes import behaviour_caption, speed_caption
from harness.analysis.phases import by_phase
from harness.analysis.response import has_sweep
from harness.analysis.response import response as figures_by_value
from harness.analysis.summary import STEADINESS, by_conversation, by_setting, by_turn
from harness.analysis.throughput import has_levels, throughput
from harness.metrics import METRICS
from harness.report import captions, response, scores
from harness.report import markdown_tables as columns
from harness.report.markdown_tables import TEXTS, Cell, Cells, telling
from harness.report.units import ABSENT, printable

MOST_ROWS = 5000
"""Of the table by conversation, give or take a conversation: a browser sorts so many at once."""
_RUN: Cells = {"run": Cell("run_id", lambda row: str(row["run_id"]))}
_TEXTS = frozenset({*TEXTS, "run"})


@dataclass(frozen=True, slots=True)
class Header:
    """What stands over a column."""

    name: str
    is_text: bool
    meaning: str = ""
    """The definition of the metric that it shows."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One cell: a value, what stands small beside it, and what the column is sorted by ("" where absent)."""

    value: str
    beside: str
    key: str


@dataclass(frozen=True, slots=True)
class Row:
    model: str
    sampling: str
    cells: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the page."""

    name: str
    title: str
    caption: str
    headers: tuple[Header, ...]
    rows: tuple[Row, ...]


def tables(runs: Sequence[Run]) -> Iterator[Table]:
    """Every table that has something to say, in the order of the page."""
    labels = {**(_RUN if len(runs) > 1 else {}), **columns.LABELS}
    settings = _together(runs, by_setting)

    def shown(name: str, title: str, frame: pd.DataFrame, of: Cells, caption: str) -> Iterator[Table]:
        if len(frame):
            yield table(name, title, frame, {**labels, **of}, caption)

    behaviour = _same(runs, behaviour_caption) + " A turn that failed or was not reached fails all its checks."
    speed = _same(runs, speed_caption) + " p95 from 60 turns on, p99 from 300."
    yield from shown("behaviour", "Behaviour", settings, {**columns.STATES, **columns.BEHAVIOUR}, behaviour)
    yield from shown("speed", "Speed", settings, columns.SPEED, speed)
    yield from shown("memory", "Memory, energy, cold start", settings, columns.MEMORY, captions.MEMORY)
    leveled = [run for run in runs if has_levels(run)]
    if leveled:
        levels = _together(leveled, throughput)
        yield from shown("throughput", "Throughput", levels, columns.THROUGHPUT, captions.THROUGHPUT)
    if settings[["stability", *STEADINESS]].notna().any(axis=None):
        yield from shown("stability", "Stability", settings, columns.STABILITY, captions.STABILITY)
    yield from shown("phases", "Where the time goes", _together(runs, by_phase), columns.BY_PHASE, captions.PHASES)
    yield from shown("growth", "Growth", _together(runs, growth), columns.GROWTH, captions.GROWTH)
    yield from shown("limits", "Largest context", _together(runs, limits_met), columns.LIMITS, captions.LIMITS)
    yield from _responses(runs)
    yield from _scores(runs)
    yield from shown("turns", "By turn", _together(runs, by_turn), columns.BY_TURN, captions.BY_TURN)
    most = max(1, MOST_ROWS // max(1, len(settings)))
    talks = _together(runs, lambda run: by_conversation(run, most))
    yield from shown("conversations", "By conversation", talks, columns.BY_CONVERSATION, _left_out(runs, most))
    launches = pd.concat([run.launches for run in runs], ignore_index=True)
    if len(launches):
        of = {**(_RUN if len(runs) > 1 else {}), **columns.LAUNCHES}
        yield table("launches", "Launches", launches, of, captions.COLD_START)


def _responses(runs: Sequence[Run]) -> Iterator[Table]:
    """What each swept setting does, and where the length runs out."""
    swept = [run for run in runs if has_sweep(run) and not response.is_left_out(run)]
    of_run = _RUN if len(runs) > 1 else {}
    if swept:
        rows = _together(swept, figures_by_value)
        for sample, what, caption in _SAMPLES:
            told = {**of_run, **response.response_columns(sample)}
            yield table(f"response-{sample}", f"What a setting {what}", rows, told, caption)
    limits = _together(runs, bitten)
    if len(limits):
        more = f" The first {MOST_ROWS} of {len(limits)} conversations." if len(limits) > MOST_ROWS else ""
        told = {**of_run, **response.limit_columns()}
        yield table("length", "Where the length runs out", limits.head(MOST_ROWS), told, captions.LENGTH + more)


_SAMPLES = (
    ("launches", "costs", captions.RESPONSE_SPEED),
    ("conversations", "changes", captions.RESPONSE_BEHAVIOUR),
)


def _scores(runs: Sequence[Run]) -> Iterator[Table]:
    """What was said of the replies by those who scored them."""
    views = [scores.Views.of(run) for run in runs]
    of_run = _RUN if len(runs) > 1 else {}
    replies = pd.concat([each.settings for each in views], ignore_index=True)
    if len(replies):
        told = {**of_run, **scores.labeled(scores.OF_REPLIES)}
        yield table("scores", "Scores", replies, told, scores.SCORES_CAPTION)
    pairs = pd.concat([each.pairs for each in views], ignore_index=True)
    if len(pairs):
        agreed = [scores.agreement_line(found) for each in views for found in each.agreements]
        told = {**of_run, **scores.labeled(scores.OF_PAIRS)}
        yield table("preferences", "Preferences", pairs, told, " ".join([scores.PAIRS_CAPTION, *agreed]))


def table(name: str, title: str, frame: pd.DataFrame, of: Cells, caption: str, texts: frozenset[str] = _TEXTS) -> Table:
    """A frame as a table of the page, without the columns that have nothing to say; `texts` are the headers of columns
    of text."""
    rows = frame.to_dict("records")
    cells = telling({header: [cell.plain(row) for row in rows] for header, cell in of.items()})
    return Table(
        name,
        title,
        caption,
        tuple(Header(header, header in texts, _meaning(of[header].key)) for header in cells),
        tuple(
            _row(row, {header: column[index] for header, column in cells.items()}, of, texts)
            for index, row in enumerate(rows)
        ),
    )


def _meaning(key: str) -> str:
    metric = METRICS.get(re.sub("_(p50|p95|p99|mean|share)$", "", key))
    return metric.definition if metric else ""


def _row(row: Mapping[Any, Any], cells: Mapping[str, str], of: Cells, texts: frozenset[str]) -> Row:
    return Row(
        model=_name(row, "model"),
        sampling=_name(row, "sampling"),
        cells=tuple(_shown(row, of[header], text, header in texts) for header, text in cells.items()),
    )


def _name(row: Mapping[Any, Any], key: str) -> str:
    return printable(str(row[key])) if key in row else ""


def _shown(row: Mapping[Any, Any], cell: Cell, text: str, is_text: bool) -> Shown:
    key = row[cell.key]
    if is_text:
        return Shown(text, "", text)
    value, _, beside = text.partition(" (")
    return Shown(value, beside.removesuffix(")"), "" if pd.isna(key) or text == ABSENT else repr(float(key)))


def _together(runs: Sequence[Run], summary: Callable[[Run], pd.DataFrame]) -> pd.DataFrame:
    return pd.concat([summary(run) for run in runs], ignore_index=True)


def _same(runs: Sequence[Run], caption: Callable[[Run], str]) -> str:
    """A caption that all runs share, or that of each after its name."""
    said = {run.run_id: caption(run) for run in runs}
    if len(set(said.values())) == 1:
        return said[runs[0].run_id]
    return " ".join(f"{run_id}: {text}" for run_id, text in said.items())


def _left_out(runs: Sequence[Run], most: int) -> str:
    planned = max(len(run.plan["conversations"]) for run in runs)
    if planned <= most:
        return captions.BY_CONVERSATION
    return (
        f"{captions.BY_CONVERSATION} The first {most} of {planned} conversations; turns.parquet has all of them, and "
        "harness.analysis.summary.by_conversation their table."
    )
