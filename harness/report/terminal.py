"""A run as tables on a terminal, 80 columns and up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.context_limit import limits_met
from harness.analysis.frames import Run
from harness.analysis.notes import behaviour_caption, notes, speed_caption
from harness.analysis.phases import by_phase
from harness.analysis.response import has_sweep
from harness.analysis.summary import STEADINESS, by_setting, by_turn
from harness.analysis.throughput import has_levels, throughput
from harness.metrics import PHASES
from harness.report import captions, response, scores
from harness.report.names import add_names, stacked
from harness.report.units import count, interval, memory, ms, number, percent, percents, printable, share
from harness.report.verdicts import headline
from harness.report.words import lane, machine, matrix

_ROWS_BY_TURN = 24
"""More rows of a table by turn than this would push the rest off the screen; report.md has it."""


def show(run: Run, console: Console) -> None:
    """Print what a run found: what was run, where, its tables, which is best at what, and what to beware of."""
    settings = by_setting(run)
    console.print(Text(run.run_id, style="bold"))
    for line in (matrix(run), lane(run), machine(run)):
        console.print(Text(printable(line), style="dim"))
    tables = [_behaviour(settings, behaviour_caption(run)), _speed(settings, speed_caption(run))]
    if has_sweep(run) and not response.is_left_out(run):
        tables += response.terminal_tables(run)
    tables += response.terminal_limits(run)
    if has_levels(run):
        tables.append(_throughput(throughput(run)))
    positions = run.turns["turn_index"].nunique()
    if positions > 1 and len(settings) * positions <= _ROWS_BY_TURN:
        tables.append(_by_turn(by_turn(run)))
    phases = by_phase(run)
    if phases["turns"].sum():
        tables.append(_phases(phases))
    if settings[list(STEADINESS)].notna().any(axis=None):
        tables.append(_stability(settings))
    limits = limits_met(run)
    if len(limits):
        tables.append(_limits(limits))
    for table in tables:
        console.print()
        console.print(table)
    for shown in scores.tables(run):
        console.print()
        console.print(shown)
    _answers(run, console)
    console.print()
    left_out = [response.LEFT_OUT] if response.is_left_out(run) else []
    for warning in (*run.manifest["warnings"], *notes(run), *left_out):
        console.print(Text(f"! {printable(warning)}", style="yellow"))


def _answers(run: Run, console: Console) -> None:
    """Which is best at what."""
    for asked, sentences in headline(run):
        console.print()
        console.print(Text(asked, style="bold"))
        for sentence in sentences:
            console.print(Text(sentence))


def _behaviour(settings: pd.DataFrame, caption: str) -> Table:
    states = [state for state in ("failed", "not_reached", "missing") if settings[state].sum()]
    table = _table(caption, settings, ["turns", *(state.replace("_", " ") for state in states)])
    for header in ("checks passed", "tokens p50", "mean", "cut off", "repetition"):
        table.add_column(header, justify="right")
    for row in settings.to_dict("records"):
        table.add_row(
            *_label(settings, row),
            count(row["turns"]),
            *(count(row[state]) for state in states),
            _with(percent(row["checks_rate"]), percents(row["checks_low"], row["checks_high"])),
            count(row["completion_tokens_p50"]),
            number(row["completion_tokens_mean"]),
            percent(row["truncated_rate"]),
            percent(row["repetition_mean"]),
        )
    return table


def _speed(settings: pd.DataFrame, caption: str) -> Table:
    accelerated = settings["peak_memory_bytes"].notna().any()
    headers = ["TTFT ms", "TPOT ms", "tok/s", "GPU memory" if accelerated else "host memory", "load s"]
    table = _table(caption, settings, headers)
    for row in settings.to_dict("records"):
        model, *rest = _label(settings, row)
        table.add_row(
            _badged(model, row["stability"]),
            *rest,
            _with(ms(row["ttft_s_p50"]), interval(row["ttft_s_low"], row["ttft_s_high"], ms)),
            _with(ms(row["tpot_s_p50"]), interval(row["tpot_s_low"], row["tpot_s_high"], ms)),
            _with(
                number(row["output_tokens_per_s_p50"]),
                interval(row["output_tokens_per_s_low"], row["output_tokens_per_s_high"], number),
            ),
            memory(row["peak_memory_bytes"] if accelerated else row["host_rss_bytes"]),
            number(row["load_s"]),
        )
    return table


def _phases(phases: pd.DataFrame) -> Table:
    table = _table(captions.PHASES, phases, [*(name.removesuffix("_s") for name in PHASES), "e2e ms"])
    for row in phases.to_dict("records"):
        table.add_row(
            *_label(phases, row),
            *(_with(ms(row[f"{name}_p50"]), percent(row[f"{name}_share"])) for name in PHASES),
            ms(row["e2e_s_p50"]),
        )
    return table


def _stability(settings: pd.DataFrame) -> Table:
    headers = ["TTFT launches", "turns", "TPOT launches", "turns", "others busy"]
    table = _table(captions.STABILITY, settings, headers)
    for row in settings.to_dict("records"):
        table.add_row(
            *_label(settings, row),
            *(share(row[name]) for name in STEADINESS),
            number(row["foreign_load"]),
        )
    return table


def _limits(limits: pd.DataFrame) -> Table:
    accelerated = limits["peak_memory_bytes"].notna().any()
    headers = ["answered", "not answered", "model's", "GPU memory" if accelerated else "host memory"]
    table = _table(captions.LIMITS, limits, headers)
    table.add_column("ended by", overflow="fold")
    for row in limits.to_dict("records"):
        table.add_row(
            *_label(limits, row),
            count(row["answered_tokens"]),
            count(row["unanswered_tokens"]),
            count(row["context_tokens"]),
            memory(row["peak_memory_bytes"] if accelerated else row["host_rss_bytes"]),
            row["ended_by"],
        )
    return table


def _by_turn(turns: pd.DataFrame) -> Table:
    headers = ["turn", "prompt", "cached", "tokens", "checks", "TTFT ms", "TPOT ms"]
    table = _table("By turn: p50 of prompt tokens, cached prompt tokens, generated tokens and times.", turns, headers)
    before: list[Text] = []
    for row in turns.to_dict("records"):
        label = _label(turns, row)
        table.add_row(
            *([""] * len(label) if label == before else label),
            count(row["turn_index"]),
            count(row["prompt_tokens_p50"]),
            count(row["cached_tokens_p50"]),
            count(row["completion_tokens_p50"]),
            percent(row["checks_rate"]),
            ms(row["ttft_s_p50"]),
            ms(row["tpot_s_p50"]),
        )
        before = label
    return table


def _throughput(levels: pd.DataFrame) -> Table:
    headers = ["together", "tok/s", "turns/s", "speed-up", "TTFT ms", "TPOT ms"]
    table = _table(captions.THROUGHPUT, levels, headers)
    for row in levels.to_dict("records"):
        table.add_row(
            *_label(levels, row),
            number(row["batch_size_mean"]),
            *(
                _with(number(row[f"{name}_p50"]), interval(row[f"{name}_low"], row[f"{name}_high"], number))
                for name in ("output_tokens_per_s", "turns_per_s", "speedup")
            ),
            ms(row["ttft_s_p50"]),
            ms(row["tpot_s_p50"]),
        )
    return table


def _table(caption: str, rows: pd.DataFrame, headers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, caption=Text(caption), caption_justify="left", header_style="bold")
    for name in ("model", "sampling"):
        add_names(table, name, rows[name])
    for header in (*(["at a time"] if _leveled(rows) else []), *headers):
        table.add_column(header, justify="right")
    return table


def _label(rows: pd.DataFrame, row: Mapping[Any, Any]) -> list[Text]:
    """Of which setting a row is; the level of concurrency is said where any row has one above 1."""
    level = [Text(count(row["concurrency"]))] if _leveled(rows) else []
    return [Text(stacked(row["model"])), Text(stacked(row["sampling"])), *level]


def _badged(model: Text, stability: Any) -> Text:
    """The model over the word that its speeds are not to be trusted."""
    unstable = pd.notna(stability) and stability.startswith("unstable")
    return Text.assemble(model, ("\nunstable", "yellow")) if unstable else model


def _leveled(rows: pd.DataFrame) -> bool:
    return bool((rows["concurrency"] > 1).any())


def _with(value: str, between: str) -> Text:
    """A value over its interval."""
    return Text.assemble(value, ("\n" + between if between else "", "dim"))
