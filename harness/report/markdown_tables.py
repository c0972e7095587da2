"""The tables of the pages: which columns they have, and how a row is shown in each; and how Markdown writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.metrics import METRICS, PHASES
from harness.report.units import ABSENT, count, interval, memory, mib, ms, number, percent, percents, printable, share

_SPECIAL = re.compile(r"([\\`*\[\]|~#<>&]|(?<!\w)_|_(?!\w))")
"""What can mean something within a line; an underscore inside a word cannot (CommonMark §6.2)."""


def escaped(text: str) -> str:
    """Foreign text within a line of Markdown: one line, nothing in it means anything."""
    return _SPECIAL.sub(r"\\\1", " ".join(printable(text).split()))


@dataclass(frozen=True, slots=True)
class Cell:
    """What a column shows of a row: called with one, it answers in Markdown."""

    key: str
    """The column of the frame that is shown, and by which rows can be sorted."""
    plain: Callable[[Mapping[Any, Any]], str]
    """The same as text in which nothing is escaped."""

    def __call__(self, row: Mapping[Any, Any]) -> str:
        return escaped(self.plain(row))


Cells = Mapping[str, Cell]
Columns = Mapping[str, Callable[[Mapping[Any, Any]], str]]
"""Header → what to show of a row."""


def _between(name: str, shown: Callable[[Any], str]) -> Cell:
    """A p50 followed by its interval."""

    def cell(row: Mapping[Any, Any]) -> str:
        inside = interval(row[f"{name}_low"], row[f"{name}_high"], shown)
        return shown(row[f"{name}_p50"]) + (f" ({inside})" if inside else "")

    return Cell(f"{name}_p50", cell)


def _rate(row: Mapping[Any, Any]) -> str:
    inside = percents(row["checks_low"], row["checks_high"])
    return percent(row["checks_rate"]) + (f" ({inside})" if inside else "")


def _with_share(phase: str) -> Cell:
    """A phase's p50, and its share of all the time."""
    return Cell(
        f"{phase}_p50",
        lambda row: (
            ABSENT if pd.isna(row[f"{phase}_p50"]) else f"{ms(row[f'{phase}_p50'])} ({percent(row[f'{phase}_share'])})"
        ),
    )


def _slope(name: str) -> Cell:
    """A slope in the unit of the row's metric, with its interval; its ends may be below 0."""

    def cell(row: Mapping[Any, Any]) -> str:
        shown, unit = (mib, "MiB") if METRICS[row["metric"]].unit == "bytes" else (ms, "ms")
        if pd.isna(row[name]):
            return ABSENT
        known = pd.notna(row[f"{name}_low"])
        between = f" ({shown(row[f'{name}_low'])} to {shown(row[f'{name}_high'])})" if known else ""
        return f"{shown(row[name])} {unit}{between}"

    return Cell(name, cell)


def _of(name: str, shown: Callable[[Any], str]) -> Cell:
    return Cell(name, lambda row: shown(row[name]))


def text_of(name: str) -> Cell:
    """A column of text, empty where there is none."""
    return Cell(name, lambda row: "" if pd.isna(row[name]) else str(row[name]))


LABELS: Cells = {
    "model": text_of("model"),
    "sampling": text_of("sampling"),
    "concurrency": _of("concurrency", count),
}
STATES: Cells = {
    name.replace("_", " "): _of(name, count) for name in ("turns", "done", "failed", "not_reached", "missing")
}
BEHAVIOUR: Cells = {
    "checks passed": Cell("checks_rate", _rate),
    "tokens p50": _of("completion_tokens_p50", count),
    "tokens mean": _of("completion_tokens_mean", number),
    "cut off": _of("truncated_rate", percent),
    "repetition": _of("repetition_mean", percent),
}
SPEED: Cells = {
    "TTFT ms": _between("ttft_s", ms),
    "TTFT p95": _of("ttft_s_p95", ms),
    "TTFT p99": _of("ttft_s_p99", ms),
    "TPOT ms": _between("tpot_s", ms),
    "TPOT p95": _of("tpot_s_p95", ms),
    "TPOT p99": _of("tpot_s_p99", ms),
    "tok/s": _between("output_tokens_per_s", number),
    "end to end ms": _between("e2e_s", ms),
    "stability": text_of("stability"),
}
MEMORY: Cells = {
    "GPU memory": _of("peak_memory_bytes", memory),
    "device in use": _of("device_used_bytes", memory),
    "host memory": _of("host_rss_bytes", memory),
    "KV cache": _of("kv_cache_bytes", memory),
    "J/turn": _of("energy_j_p50", number),
    "J/token": _of("energy_per_token_j_p50", number),
    "of bandwidth": _of("bandwidth_utilisation_p50", percent),
    "of matrix rate": _of("prefill_flop_utilisation_p50", percent),
    "load s": _of("load_s", number),
    "first turn ms": _of("first_turn_s", ms),
}
THROUGHPUT: Cells = {
    "turns": _of("turns", count),
    "answered together": _of("batch_size_mean", number),
    "tok/s": _between("output_tokens_per_s", number),
    "turns/s": _between("turns_per_s", number),
    "speed-up": _between("speedup", number),
    "TTFT ms": _between("ttft_s", ms),
    "TPOT ms": _between("tpot_s", ms),
    "end to end ms": _between("e2e_s", ms),
}
STABILITY: Cells = {
    "TTFT launch to launch": _of("ttft_s_launch_sd", share),
    "TTFT turn to turn": _of("ttft_s_turn_sd", share),
    "TPOT launch to launch": _of("tpot_s_launch_sd", share),
    "TPOT turn to turn": _of("tpot_s_turn_sd", share),
    "processors of others": _of("foreign_load", number),
    "stability": text_of("stability"),
}
BY_PHASE: Cells = {
    **{METRICS[name].title.lower() + " ms": _with_share(name) for name in PHASES},
    "end to end ms": _of("e2e_s_p50", ms),
}
GROWTH: Cells = {
    "of": Cell("metric", lambda row: METRICS[row["metric"]].title.lower()),
    "per 1k tokens of context": _slope("per_1k_context"),
    "per 1k new tokens": _slope("per_1k_new"),
    "per turn": _slope("per_turn"),
    "context tokens": Cell("context_high", lambda row: interval(row["context_low"], row["context_high"], count)),
    "interval of": text_of("basis"),
}
LIMITS: Cells = {
    "largest context answered": _of("answered_tokens", count),
    "next, not answered": _of("unanswered_tokens", count),
    "the model's own": _of("context_tokens", count),
    "ended by": text_of("ended_by"),
    "GPU memory": _of("peak_memory_bytes", memory),
    "device in use": _of("device_used_bytes", memory),
    "host memory": _of("host_rss_bytes", memory),
    "KV cache": _of("kv_cache_bytes", memory),
}
BY_TURN: Cells = {
    "turn": _of("turn_index", count),
    "turns": _of("turns", count),
    "done": _of("done", count),
    "prompt tokens": _of("prompt_tokens_p50", count),
    "cached": _of("cached_tokens_p50", count),
    "tokens": _of("completion_tokens_p50", count),
    "left": _of("tokens_left_p50", count),
    "dropped messages": _of("dropped_messages_p50", count),
    "checks passed": _of("checks_rate", percent),
    "prefill ms": _of("prefill_s_p50", ms),
    "TTFT ms": _between("ttft_s", ms),
    "TPOT ms": _between("tpot_s", ms),
    "tok/s": _between("output_tokens_per_s", number),
}
BY_CONVERSATION: Cells = {
    "conversation": text_of("conversation_id"),
    **STATES,
    "checks passed": _of("checks_rate", percent),
    "tokens mean": _of("completion_tokens_mean", number),
    "cut off": _of("truncated_rate", percent),
    "repetition": _of("repetition_mean", percent),
    "end to end ms": _of("e2e_s_p50", ms),
}
LAUNCHES: Cells = {
    "model": text_of("model"),
    "launch": _of("launch", count),
    "load s": _of("load_s", number),
    "imports s": _of("import_s", number),
    "weights s": _of("weights_s", number),
    "first forward s": _of("first_forward_s", number),
    "compile s": _of("compile_s", number),
    "first turn ms": _of("first_turn_s", ms),
    "error": text_of("error"),
}


def table(frame: pd.DataFrame, columns: Columns) -> str:
    """A table of the columns that have something to say in any row."""
    rows = frame.to_dict("records")
    told = telling({header: [show(row) for row in rows] for header, show in columns.items()})
    lines = [_line(list(told)), _line(["---" if header in TEXTS else "---:" for header in told])]
    lines += [_line([column[index] for column in told.values()]) for index in range(len(rows))]
    return "\n".join(lines) + "\n"


def telling(cells: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Of the columns of a table, header → cells, those that have something to say in any row."""
    silent = {ABSENT, ""}
    return {
        header: column
        for header, column in cells.items()
        if header in _ALWAYS or set(column) - silent - _UNREMARKABLE.get(header, set())
    }


_ALWAYS = {"model", "sampling"}
_UNREMARKABLE = {
    "failed": {"0"}, "not reached": {"0"}, "missing": {"0"}, "dropped messages": {"0"}, "concurrency": {"1"},
}  # fmt: skip
"""Columns that are left out where they say nothing but this."""
TEXTS = {
    "model",
    "sampling",
    "conversation",
    "error",
    "stability",
    "of",
    "interval of",
    "ended by",
    "setting",
    "averaged over",
    "held against",
    "limit",
    "score",
    "preferred by",
    "against",
}
"""Columns of text, which stand at the left."""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
