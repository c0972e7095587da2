"""The page of a history: lines of every watched figure over the nights, change points with what changed then, and the
nights with their verdicts. It stands for itself: the lines are drawn here, as SVG, without a library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from harness.analysis.trend import Line, Trend
from harness.errors import StoreError
from harness.report.page.shell import ANSWER_CLASSES, ENVIRONMENT, asset, link, policy
from harness.report.trend import BY, CONFIRMED, NO_PROOF, first_nights, records, sentence, shown

_WIDTH, _HEIGHT = 720, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 8, 10, 22
"""Pixels round the drawing, for labels."""
_DATES = 6
"""Dates under a drawing, at the most."""


@dataclass(frozen=True, slots=True)
class _Point:
    x: float
    y: float
    low: float
    high: float
    title: str
    verdict: str
    link: str | None


@dataclass(frozen=True, slots=True)
class _Label:
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class _Mark:
    """A change point: where, over which nights, and the mean on either side."""

    x: float
    left: float
    right: float
    better: str
    title: str


@dataclass(frozen=True, slots=True)
class _Drawing:
    name: str
    title: str
    summary: str
    note: str
    paths: tuple[str, ...]
    means: tuple[tuple[float, float, float], ...]
    points: tuple[_Point, ...]
    marks: tuple[_Mark, ...]
    rows: tuple[_Label, ...]
    columns: tuple[_Label, ...]


def write_trend_page(trend: Trend, path: Path) -> Path:
    """Write the page, and return its path. Raises StoreError where it cannot be written."""
    try:
        path.write_text(trend_page(trend, path.parent), encoding="utf-8", newline="\n")
    except OSError as error:
        fact = f"cannot be written: {error.strerror or error}"
        raise StoreError(str(path), fact, "name another file with --html") from error
    return path


def trend_page(trend: Trend, folder: Path) -> str:
    """The page, with links as they are from this folder."""
    style = Markup("\n").join([asset("page.css"), asset("trend.css")])
    theme, script = asset("theme.js"), asset("still.js")
    names = {id(line): f"line-{number}" for number, line in enumerate(trend.lines)}
    page: str = ENVIRONMENT.from_string(asset("trend.html.j2")).render(
        policy=policy(style, [theme, script]),
        style=style,
        theme=theme,
        script=script,
        notes=trend.history.notes,
        firsts=[
            {
                "where": f"{first.config} on {first.device}",
                "night": _night(trend, first.run_id, folder),
                "lines": [
                    {"id": names[id(line)], "sentence": sentence(line, turning), "class": _class(turning.better)}
                    for line, turning in first.turnings
                ],
                "changed": first.changed,
                "near": first.near,
            }
            for first in first_nights(trend)
        ],
        about=f"{BY[trend.detector]}{CONFIRMED} {NO_PROOF}",
        groups=[_group(trend, device, config, names, folder) for device, config in trend.history.watched],
        size=(_WIDTH, _HEIGHT),
        frame=(_LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM),
    )
    return page


def _class(better: bool | None) -> str:
    return {True: "good", False: "bad", None: "doubt"}[better]


def _group(trend: Trend, device: str, config: str, names: dict[int, str], folder: Path) -> dict[str, Any]:
    """The nights of one config on one device, the newest first, and its lines."""
    frame = trend.history.nights
    nights = frame[(frame["device"] == device) & (frame["config"] == config)]
    lines = [line for line in trend.lines if (line.device, line.config) == (device, config)]
    firsts = {turning.first for line in lines for turning in line.turnings}
    return {
        "title": f"{config} on {device}",
        "drawings": [_drawing(line, names[id(line)], nights, folder) for line in lines],
        "nights": [
            {
                **night,
                "link": _link(night["page"], folder),
                "began": night["created_at"].strftime("%Y-%m-%d %H:%M"),
                "class": ANSWER_CLASSES.get(night["answer"] or "", ""),
                "turning": night["run_id"] in firsts,
            }
            for night in records(nights.iloc[::-1])
        ],
    }


def _night(trend: Trend, run_id: str, folder: Path) -> dict[str, Any]:
    frame = trend.history.nights
    (night,) = records(frame[frame["run_id"] == run_id].head(1))
    return {"run_id": run_id, "link": _link(night["page"], folder), "began": night["created_at"].strftime("%Y-%m-%d")}


def _link(page: str | None, folder: Path) -> str | None:
    return None if page is None else link(page, folder)


def _drawing(line: Line, name: str, nights: pd.DataFrame, folder: Path) -> _Drawing:
    places = {night: place for place, night in enumerate(nights["night"])}
    place = np.array([places[night] for night in line.values["night"]])
    bottom, top = _range(line.values["launch_low"].min(), line.values["launch_high"].max())

    def height(value: float) -> float:
        return round(_TOP + (top - value) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM), 2)

    def left_of(position: int) -> float:
        """Half way from the night before."""
        return _across(float(place[position]) - 0.5, len(nights))

    pages = dict(zip(nights["night"], records(nights), strict=True))
    points = tuple(
        _Point(
            x=_across(float(across), len(nights)),
            y=height(row["value"]),
            low=height(row["launch_low"]),
            high=height(row["launch_high"]),
            title=_told(line, row),
            verdict=ANSWER_CLASSES.get(row["answer"] or "", ""),
            link=_link(pages[row["night"]]["page"], folder),
        )
        for across, row in zip(place, records(line.values), strict=True)
    )
    edges = [*(left_of(turning.change.first) for turning in line.turnings), _across(len(nights) - 0.5, len(nights))]
    levels = [turning.after for turning in line.turnings]
    before = [(_LEFT, edges[0], height(line.turnings[0].before))] if line.turnings else []
    return _Drawing(
        name=name,
        title=f"{line.figure.title} – {line.name}",
        summary=f"{line.figure.name}, last {shown(line.figure, line.values['value'].iloc[-1])}",
        note=line.note,
        paths=_paths(place, points),
        means=(*before, *(
            (start, end, height(level)) for (start, end), level in zip(pairwise(edges), levels, strict=True)
        )),
        points=points,
        marks=tuple(
            _Mark(
                x=left_of(turning.change.first),
                left=left_of(turning.change.earliest),
                right=left_of(turning.change.latest),
                better=_class(turning.better),
                title=sentence(line, turning),
            )
            for turning in line.turnings
        ),
        rows=tuple(_Label(height(value), shown(line.figure, value)) for value in np.linspace(bottom, top, 5)[1::2]),
        columns=tuple(_dates(nights)),
    )  # fmt: skip


def _told(line: Line, row: dict[str, Any]) -> str:
    """What a pointer that rests on a night is told."""
    value, low, high = (shown(line.figure, row[name]) for name in ("value", "launch_low", "launch_high"))
    launches = f", launches {low} – {high}" if row["launches"] > 1 else ""
    answer = f", {row['answer']}" if row["answer"] else ""
    return f"{row['run_id']}, {row['created_at']:%Y-%m-%d}: {value}{launches}{answer}"


def _across(place: float, nights: int) -> float:
    return round(_LEFT + (place + 0.5) / nights * (_WIDTH - _LEFT - _RIGHT), 2)


def _range(low: float, high: float) -> tuple[float, float]:
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.05
    return low - room, high + room


def _paths(place: np.ndarray[Any, Any], points: Sequence[_Point]) -> tuple[str, ...]:
    """A line through the nights that follow each other; it breaks where a night has no value."""
    pieces = np.split(np.arange(len(place)), np.flatnonzero(np.diff(place) > 1) + 1)
    return tuple("M" + "L".join(f"{points[at].x} {points[at].y}" for at in piece) for piece in pieces)


def _dates(nights: pd.DataFrame) -> list[_Label]:
    count = len(nights)
    begun = nights["created_at"].tolist()
    return [
        _Label(_across(place, count), f"{begun[place]:%Y-%m-%d}")
        for place in range(0, count, max(1, math.ceil(count / _DATES)))
    ]
