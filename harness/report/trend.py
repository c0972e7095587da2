"""Trends in words, on a terminal and as JSON: the same sentences on the page (`page/trend.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.analysis.nightly_values import Watched
from harness.analysis.trend import Changed, Line, Trend, Turning
from harness.report.names import stacked
from harness.report.units import ABSENT, memory, ms, number, printable

_MOST_NIGHTS = 30
"""Nights of a sparkline: as many as fit beside the rest of a table on 100 columns."""
_BARS = "▁▂▃▄▅▆▇█"
_WORDS = {True: "better", False: "worse", None: "other"}
_STYLES = {True: "green", False: "red", None: "yellow"}
BY = {
    "ruptures and running medians": "Change points are proposed by ruptures and by running medians",
    "running medians": "Change points are proposed by running medians alone (ruptures, which finds smaller ones, comes "
    "with pip install 'instruct-harness[trend]')",
}
CONFIRMED = ", and confirmed by one t-test for all lines and nights together; a change must be 5 nights old to be one."
NO_PROOF = "What changed on the same night is named; that is no proof that it did it."


def shown(figure: Watched, value: Any) -> str:
    """A value of a figure with its unit."""
    if pd.isna(value):
        return ABSENT
    match figure.unit:
        case "s":
            return f"{ms(value)} ms"
        case "bytes":
            return memory(value)
        case "ratio":
            return f"{100 * value:.4g} %"
        case "nats":
            return f"{value:.4g} nats"
    return f"{number(value)} {figure.unit}"


def effect(figure: Watched, turning: Turning) -> str:
    """`+6.1 % (+5.3 … +6.9)`, points of a share, or nats."""
    unit = "%" if turning.scale == "ratio" else "points" if figure.unit == "ratio" else figure.unit
    none, times = (1 if unit == "%" else 0), (1 if unit == figure.unit else 100)
    parts = [times * (value - none) for value in (turning.effect, turning.low, turning.high)]
    middle, low, high = (f"{part:+.3g}" if abs(part) < 100 else f"{part:+.0f}" for part in parts)
    return f"{middle} {unit} ({low} … {high})"


def sentence(line: Line, turning: Turning) -> str:
    """What changed, by how much; and where more than one night may have been the first, which."""
    nights = turning.among
    sure = "" if len(nights) == 1 else f"; first surely one of {nights[0]} … {nights[-1]}"
    values = f"{shown(line.figure, turning.before)} → {shown(line.figure, turning.after)}"
    return (
        f"{line.figure.name} of {line.name}: {_WORDS[turning.better]}, {effect(line.figure, turning)}, {values}{sure}"
    )


@dataclass(frozen=True, slots=True)
class FirstNight:
    """A night from which on something is otherwise: everything that is, and what else changed then."""

    run_id: str
    config: str
    device: str
    turnings: tuple[tuple[Line, Turning], ...]
    changed: tuple[str, ...]
    near: tuple[tuple[str, tuple[str, ...]], ...]
    """Other nights that may have been the first, each with what changed on it."""


def first_nights(trend: Trend) -> list[FirstNight]:
    """The change points by their first night, the newest first; apart where not the same changed then."""
    groups: dict[tuple[Any, ...], list[tuple[Line, Turning]]] = {}
    for line, turning in trend.turnings:
        key = turning.first, line.config, line.device, tuple(changed(turning.changed))
        groups.setdefault(key, []).append((line, turning))
    return [
        FirstNight(
            first, config, device, tuple(found), told,
            tuple(dict.fromkeys((near.after, tuple(changed(near))) for _, each in found for near in each.near)),
        )
        for (first, config, device, told), found in groups.items()
    ]  # fmt: skip


def changed(found: Changed) -> list[str]:
    """What else differs between two nights, a line for each thing."""
    lines = list(found.told) or ["nothing that is recorded"]
    if found.commits:
        lines.append(f"commits: {'; '.join(found.commits)}")
    return lines


def sparkline(values: Sequence[float]) -> str:
    """Bars from the lowest value to the highest; all in the middle where they are the same."""
    low, high = min(values), max(values)
    if high == low:
        return _BARS[3] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def show(trend: Trend, console: Console) -> None:
    """Print a table per config and device, then every change point with what changed then, then the notes."""
    for (device, config), lines in _groups(trend).items():
        nights = max(len(line.values) for line in lines)
        console.print(Text(printable(f"{config} on {device}: {nights} nights"), style="bold"))
        console.print(_table(lines))
        console.print()
    for night in first_nights(trend):
        console.print(Text(printable(f"From {night.run_id} on ({night.config} on {night.device})"), style="bold"))
        for line, turning in night.turnings:
            console.print(Text(printable(f"  {sentence(line, turning)}"), style=_STYLES[turning.better]))
        console.print(Text(printable(f"  changed that night: {'; '.join(night.changed)}")))
        for run_id, told in night.near:
            console.print(Text(printable(f"  changed near, on {run_id}: {'; '.join(told)}"), style="dim"))
        console.print()
    if trend.lines and not trend.turnings:
        console.print("No change points.")
    if trend.lines:
        console.print(Text(f"{BY[trend.detector]}{CONFIRMED} {NO_PROOF}", style="dim"))


def _groups(trend: Trend) -> dict[tuple[str, str], list[Line]]:
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in trend.lines:
        groups.setdefault((line.device, line.config), []).append(line)
    return groups


def _table(lines: Sequence[Line]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("setting", overflow="fold")
    table.add_column("figure", overflow="fold")
    table.add_column("last", justify="right", no_wrap=True)
    table.add_column(f"last {_MOST_NIGHTS} nights", no_wrap=True, overflow="crop")
    table.add_column("change points", overflow="fold")
    for line in lines:
        values = line.values["value"].tolist()
        found = [f"{turning.first}: {effect(line.figure, turning).partition(' (')[0]}" for turning in line.turnings]
        worse = any(turning.better is False for turning in line.turnings)
        table.add_row(
            Text(stacked(line.name)),
            Text(printable(line.figure.name)),
            Text(shown(line.figure, values[-1])),
            Text(sparkline(values[-_MOST_NIGHTS:])),
            Text(printable("\n".join([*found, *([line.note] if line.note else [])]) or ABSENT), style="red" * worse),
        )
    return table


def trend_text(trend: Trend) -> str:
    """A line per change point, tabs between: night, config, device, model, sampling, concurrency, figure, better or
    worse, effect, low, high, what changed. For `cut` and `grep`; nothing where there is none."""
    lines = []
    for line, turning in trend.turnings:
        numbers = [f"{value:.6g}" for value in (turning.effect, turning.low, turning.high)]
        fields = [
            turning.first, line.config, line.device, *map(str, line.setting), line.figure.name,
            _WORDS[turning.better], *numbers, "; ".join(changed(turning.changed)),
        ]  # fmt: skip
        lines.append("\t".join(" ".join(printable(field).split()) for field in fields) + "\n")
    return "".join(lines)


def trend_json(trend: Trend) -> str:
    """Everything: nights, lines with their values, change points with what changed then, notes."""
    told = {
        "detector": trend.detector,
        "notes": list(trend.history.notes),
        "nights": records(trend.history.nights),
        "lines": [_line(line) for line in trend.lines],
    }
    return orjson.dumps(
        told, default=pd.Timestamp.isoformat, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    ).decode()


def trend_csv(trend: Trend) -> str:
    """The values, one row per night, setting and figure, each with what is known of its night."""
    about = trend.history.nights.drop(columns=["run_id", "created_at", "device", "config", "turns", "answer"])
    joined: str = trend.history.values.merge(about, on="night", how="left").to_csv(index=False)
    return joined


def _line(line: Line) -> dict[str, Any]:
    model, sampling, level = line.setting
    columns = ["run_id", "value", "launch_low", "launch_high", "launches", "turns", "answer"]
    return {
        "device": line.device,
        "config": line.config,
        "model": model,
        "sampling": sampling,
        "concurrency": level,
        "figure": line.figure.name,
        "unit": line.figure.unit,
        "better": line.figure.better,
        "note": line.note,
        "values": records(line.values[columns]),
        "change_points": [_turning(turning) for turning in line.turnings],
    }


def _turning(turning: Turning) -> dict[str, Any]:
    return {
        "first": turning.first,
        "among": list(turning.among),
        "change": _WORDS[turning.better],
        "scale": turning.scale,
        **{name: getattr(turning, name) for name in ("effect", "low", "high", "before", "after")},
        "changed": _changed(turning.changed),
        "near": [_changed(each) for each in turning.near],
    }


def _changed(found: Changed) -> dict[str, Any]:
    differences = [
        {"field": each.field, "before": each.baseline, "after": each.candidate, "remark": each.remark}
        for each in found.differences
    ]
    commits = None if found.commits is None else list(found.commits)
    return {"before": found.before, "after": found.after, "differences": differences, "commits": commits,
            "reason": found.reason}  # fmt: skip


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame; what is absent is None."""
    known = frame.astype(object).where(frame.notna(), None)
    return [dict(zip(known.columns, row, strict=True)) for row in known.itertuples(index=False, name=None)]
