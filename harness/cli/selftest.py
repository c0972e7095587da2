"""`harness selftest`: whether the meter is right on this machine, what it costs, and what differences can be told."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from harness.studies.known import Deviation
    from harness.studies.realtime import Measured
    from harness.studies.selftest import Noise, Selftest

WRONG = 1
DEVIATIONS_SHOWN = 20
_SAID = (5, 10)
"""The numbers of launches that the last sentence speaks of."""
_WORDS = {"ttft_s": "time to first token", "tpot_s": "time per token"}
_TEXTS = ("part", "recital", "metric", "tokens", "")
"""Headers of columns of words."""
_VERDICTS = {True: "right", False: "WRONG", None: "too busy to tell"}


def selftest(
    launches: Annotated[int, typer.Option("--launches", min=2, help="Fresh processes that do identical work.")] = 6,
    results: Annotated[
        Path | None, typer.Option("--results", help="Keep the runs here; otherwise only those of a wrong meter are.")
    ] = None,
    output: Annotated[Literal["table", "json"], typer.Option("--format", help="What to print on stdout.")] = "table",
) -> None:
    """Measure known times and identical work on this machine. Exit code 1 where the meter is wrong.

    It takes about ten seconds, and another ten for every launch.
    """
    from rich.console import Console

    from harness.studies.selftest import selftest as study

    # Runs of the selftest lie in a folder of their own: they are no runs of the user's models.
    parent = Path(tempfile.mkdtemp(prefix="harness-")) if results is None else results
    folder = parent / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-selftest"
    found = study(folder, launches, lambda line: typer.echo(line, err=True))
    if output == "json":
        typer.echo(
            json.dumps({"right": found.right, "too_busy": found.too_busy, **asdict(found)}, indent=2, default=str)
        )
    else:
        _show(found, Console())
    if results is None and found.right:
        shutil.rmtree(parent)
    else:
        typer.echo(f"runs kept: {folder}", err=True)
    if not found.right:
        sys.exit(WRONG)


def _show(found: Selftest, console: Console) -> None:
    clock = found.clock
    _print(
        console,
        f"clock: {clock.name}; smallest step {_duration(clock.smallest_step_s)}, {_duration(clock.reading_s)} to read",
    )
    rows = [
        (cost.part, cost.per, _duration(cost.seconds), "yes" if cost.in_measured_time else "no") for cost in found.costs
    ]
    _table(console, "What the meter costs.", ("part", "per", "time", "in measured times"), rows)
    deviations = found.exact.deviations
    equal = "all equal to the nanosecond" if not deviations else f"{len(deviations)} of them WRONG"
    _print(
        console,
        f"\nKnown times on the hand-cranked clock: {found.exact.turns} turns, {found.exact.values} values, {equal}.",
    )
    _deviations(console, deviations)
    late = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in found.real_time.lateness_s.items())
    _table(
        console,
        f"Known times in real time: {found.real_time.turns} turns. A bare pause ends late by: {late} (median).",
        ("recital", "metric", "planned", "allowed for the fastest", "fastest", "median", ""),
        [_measured(row) for row in found.real_time.measured],
    )
    _table(
        console,
        "Tokens in real time, over all turns.",
        ("recital", "tokens", "expected", "counted"),
        [(row.recital, row.tokens, str(row.expected), str(row.measured)) for row in found.real_time.counted],
    )
    _deviations(console, found.real_time.deviations)
    if found.noise is not None:
        _noise(console, found.noise)
    for line in verdict(found):
        _print(console, line)


def _measured(row: Measured) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        if value is None:
            return "–"
        return f"{value:.1f}/s" if row.metric.endswith("per_s") else _duration(value)

    allowed = f"{shown(row.low)}–{shown(row.high)}"
    told = (shown(row.planned), allowed, shown(row.fastest), shown(row.median))
    return (row.recital, row.metric, *told, _VERDICTS[row.right])


def _deviations(console: Console, deviations: Sequence[Deviation]) -> None:
    for one in deviations[:DEVIATIONS_SHOWN]:
        _print(console, f"  {one.where}: {one.quantity} must be {one.expected}, is {one.measured}")
    if len(deviations) > DEVIATIONS_SHOWN:
        _print(console, f"  and {len(deviations) - DEVIATIONS_SHOWN} more")


def _noise(console: Console, noise: Noise) -> None:
    rows = []
    for spread in noise.spreads:
        within = "–" if spread.within is None else _share(spread.within)
        between = f"{_share(spread.between)} ({_share(spread.between_low)} to {_share(spread.between_high)})"
        rows.append((spread.metric, str(len(spread.launch_means)), str(spread.turns), within, between))
    _table(
        console,
        "Noise of identical work, as standard deviations of logarithms; 95 % interval.",
        ("metric", "launches", "turns each", "within launches", "between launches"),
        rows,
    )
    sizes = sorted({one.launches for one in noise.resolutions})
    _table(
        console,
        "Smallest difference told from nothing, by launches per side: at 95 % confidence, in 80 % of comparisons.",
        ("metric", *map(str, sizes)),
        [
            (
                spread.metric,
                *(_share(one.difference) for one in noise.resolutions if one.metric == spread.metric),
            )
            for spread in noise.spreads
        ],
    )


def verdict(found: Selftest) -> list[str]:
    """The last lines: whether the meter is right, and what this machine can tell."""
    if not found.right:
        return ["\nThe meter is WRONG on this machine: do not trust its numbers."]
    lines = ["\nThe meter is right."]
    if found.too_busy:
        lines = ["\nThe meter is right on the hand-cranked clock; this machine is too busy to see it in real time."]
    if found.noise is None:
        return lines
    for spread in found.noise.spreads:
        told = {one.launches: one for one in found.noise.resolutions if one.metric == spread.metric}
        few, many = (told[launches] for launches in _SAID)
        lines.append(
            f"This machine resolves differences in {_WORDS[spread.metric]} of {_share(few.difference)} with "
            f"{few.launches} launches per side, {_share(many.difference)} with {many.launches} "
            f"(from {len(spread.launch_means)} launches, so perhaps {_share(many.low)} to {_share(many.high)})."
        )
    return lines


def _table(console: Console, caption: str, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="left" if header in _TEXTS else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    _print(console, f"\n{caption}")
    console.print(table)


def _print(console: Console, line: str) -> None:
    from rich.text import Text

    console.print(Text(line))


def _duration(seconds: float) -> str:
    """With four digits, in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if abs(seconds) >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds * 1e9:.4g} ns"


def _share(value: float) -> str:
    """A difference as per cent with two digits; above tenfold the number means nothing any more."""
    return f"{100 * value:.2g} %" if value < 1 else f"{100 * value:.0f} %" if value < 10 else "> 1000 %"
