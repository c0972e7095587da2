"""What a setting does, and where a limit of the length begins to bite, as tables on a terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.table import Table
from rich.text import Text

from harness.analysis.frames import Run
from harness.analysis.length_limit import bitten
from harness.analysis.measures import MEASURES
from harness.analysis.response import has_sweep, response
from harness.analysis.sweep import EACH
from harness.report import markdown_tables
from harness.report.captions import LENGTH, RESPONSE_BEHAVIOUR, RESPONSE_SPEED
from harness.report.markdown_tables import Cell, Cells, text_of
from harness.report.names import add_names, stacked
from harness.report.units import count, interval, ms, number, percent, percents, printable

MOST_TURNS = 100_000
"""Of a larger run settings are compared, and the ids and replies looked at again, only when somebody asks for it."""
LEFT_OUT = (
    f"Not worked out unasked for more than {MOST_TURNS} turns: what settings do. harness report RUN --table response"
)
_ROWS = 24
"""Of a table on a terminal; report.md has the rest."""
_SHOWN: Mapping[str, Callable[[Any], str]] = {"s": ms, "tokens": number, "units": number, "ratio": percent}
_COST = ("sampling_step_s", "tpot_s", "e2e_s", "completion_tokens", "truncated_rate")
_SAID = (
    *("repetition", "distinct_2", "loop_rate", "agreement_rate", "checks_rate", "divergence_rate", "divergence_token"),
)  # fmt: skip
_HEADERS = {
    "sampling_step_s": "choosing ms/token",
    "tpot_s": "TPOT ms",
    "e2e_s": "end to end ms",
    "completion_tokens": "tokens",
    "truncated_rate": "cut off",
    "repetition": "repetition",
    **{f"distinct_{size}": f"distinct-{size}" for size in (1, 2, 3)},
    "longest_loop": "longest loop",
    "loop_rate": "loops",
    "agreement_rate": "repeats agree",
    "reproduction_rate": "launches agree",
    "checks_rate": "checks passed",
    "divergence_rate": "unlike greedy",
    "divergence_token": "from id",
    "divergence_share": "from share",
}


def is_left_out(run: Run) -> bool:
    """Whether a report does not show the table without being asked for it."""
    return has_sweep(run) and len(run.turns) > MOST_TURNS


def terminal_tables(run: Run) -> Iterator[Table]:
    """What a setting costs, and what it changes. Samplings by themselves are left to report.md, but for the greedy ones
    that the others are held against."""
    rows = response(run)
    if len(rows.loc[rows["parameter"] != EACH]):
        rows = rows[(rows["parameter"] != EACH) | rows["value"].isin(_greedy(rows))]
    averaged = _averaged(rows)
    for caption, names in ((RESPONSE_SPEED, _COST), (RESPONSE_BEHAVIOUR, _SAID)):
        known = [name for name in names if rows[name].notna().any()]
        table = Table(box=None, pad_edge=False, caption=Text(caption + averaged), caption_justify="left")
        add_names(table, "model", rows["model"])
        add_names(table, "setting", map(_setting, rows.to_dict("records")))
        for name in known:
            table.add_column(_HEADERS[name], justify="right")
        for row in rows.head(_ROWS).to_dict("records"):
            table.add_row(
                Text(stacked(row["model"])),
                Text(stacked(_setting(row))),
                *(Text.assemble(_value(row, name), (_line(_between(row, name)), "dim")) for name in known),
            )
        yield table


def terminal_limits(run: Run) -> Iterator[Table]:
    """Where limits of the length begin to bite; nothing where they do not."""
    rows = bitten(run)
    if not len(rows):
        return
    table = Table(box=None, pad_edge=False, caption=Text(LENGTH), caption_justify="left")
    for header, name in {"model": "model", "sampling": "sampling", "conversation": "conversation_id"}.items():
        add_names(table, header, rows[name])
    for header in _LIMITS:
        table.add_column(header, justify="right", overflow="fold", no_wrap=header == "limit")
    for row in rows.head(_ROWS).to_dict("records"):
        named = (row["model"], row["sampling"], row["conversation_id"])
        table.add_row(*(Text(stacked(name)) for name in named), *(cell.plain(row) for cell in _LIMITS.values()))
    yield table


def markdown(run: Run) -> Iterator[str]:
    """Both as sections of the page; nothing where there is nothing to say."""
    if has_sweep(run):
        yield "## What a setting does\n"
        yield from [LEFT_OUT + "\n"] if is_left_out(run) else response_tables(run)
    yield from limit_table(run)


def response_tables(run: Run) -> Iterator[str]:
    """Costs and changes in Markdown, each with its caption."""
    rows = response(run)
    for caption, sample in ((RESPONSE_SPEED, "launches"), (RESPONSE_BEHAVIOUR, "conversations")):
        yield markdown_tables.table(rows, response_columns(sample))
        yield caption + "\n"


def response_columns(sample: str) -> Cells:
    """The columns of the figures that have this for their sample."""
    return {**_LABELS, **{_HEADERS[name]: _cell(name) for name, each in MEASURES.items() if each.sample == sample}}


def limit_table(run: Run) -> Iterator[str]:
    """Where limits of the length begin to bite, in Markdown; nothing where they do not."""
    rows = bitten(run)
    if len(rows):
        yield "## Where the length runs out\n"
        yield markdown_tables.table(
            rows.head(_MOST_LIMITS),
            limit_columns(),
        )
        if len(rows) > _MOST_LIMITS:
            yield f"The first {_MOST_LIMITS} of {len(rows)} conversations.\n"
        yield LENGTH + "\n"


def limit_columns() -> Cells:
    """The columns of the table of limits."""
    by_turn = Cell("tokens_left_at_start", lambda row: ", ".join(map(count, row["tokens_left_by_turn"])))
    conversation = Cell("conversation_id", lambda row: str(row["conversation_id"]))
    return {**markdown_tables.LABELS, "conversation": conversation, **_LIMITS, "left turn by turn": by_turn}


_MOST_LIMITS = 200


def _greedy(rows: pd.DataFrame) -> set[str]:
    return {name for names in rows["greedy"].dropna() for name in names.split(", ")}


def _averaged(rows: pd.DataFrame) -> str:
    """What each parameter is averaged over."""
    curves = rows.loc[rows["over"] != "", ["parameter", "over"]].drop_duplicates()
    return "".join(f" {row['parameter']}: over {printable(row['over'])}." for row in curves.to_dict("records"))


def _setting(row: Mapping[Any, Any]) -> str:
    value = "not set" if pd.isna(row["value"]) else row["value"]
    level = f" at concurrency {row['concurrency']}" if row["concurrency"] > 1 else ""
    return (value if row["parameter"] == EACH else f"{row['parameter']}={value}") + level


def _value(row: Mapping[Any, Any], name: str) -> str:
    return _SHOWN[MEASURES[name].unit](row[name])


def _between(row: Mapping[Any, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(low) or pd.isna(high):
        return ""
    if low < 0:
        return f"{_SHOWN[MEASURES[name].unit](low)} to {_SHOWN[MEASURES[name].unit](high)}"
    return percents(low, high) if MEASURES[name].unit == "ratio" else interval(low, high, _SHOWN[MEASURES[name].unit])


def _line(text: str) -> str:
    return f"\n{text}" if text else ""


def _cell(name: str) -> Cell:
    def cell(row: Mapping[Any, Any]) -> str:
        between = _between(row, name)
        return _value(row, name) + (f" ({between})" if between else "")

    return Cell(name, cell)


def _limit(row: Mapping[Any, Any]) -> str:
    return row["limited_by"] if pd.isna(row["limit_tokens"]) else f"{row['limited_by']}={row['limit_tokens']}"


def _happens(row: Mapping[Any, Any]) -> str:
    if row["refused"]:
        return "refused"
    if row["cut_off"]:
        return "cut off" if row["tokens_left_at_start"] else "no room"
    return f"{row['dropped_messages']} messages dropped"


_LABELS: Cells = {
    "model": text_of("model"),
    "setting": Cell("value", _setting),
    "averaged over": text_of("over"),
    "held against": text_of("greedy"),
}
_LIMITS: Cells = {
    "limit": Cell("limited_by", _limit),
    "turn": Cell("turn_index", lambda row: count(row["turn_index"])),
    "left at its start": Cell("tokens_left_at_start", lambda row: count(row["tokens_left_at_start"])),
    "what happens": Cell("refused", _happens),
    "in plays": Cell("bitten", lambda row: f"{count(row['bitten'])} of {count(row['plays'])}"),
    "never reached": Cell("not_reached", lambda row: count(row["not_reached"])),
}


@dataclass(frozen=True, slots=True)
class Alone:
    """A table that can be asked for by name, in both forms."""

    terminal: Callable[[Run], Iterator[Table]]
    markdown: Callable[[Run], Iterator[str]]


ALONE: Mapping[str, Alone] = {
    "response": Alone(terminal_tables, response_tables),
    "length-limits": Alone(terminal_limits, limit_table),
}
