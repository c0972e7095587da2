"""The kinds of charts, as Vega-Lite: curves, distributions, points, dots and bars. The only place that knows altair.

What is given are rows ready to be drawn; what comes back is a spec without title, colours or width of its own – the
page or the exporter gives those. Every spec holds its data once, and only fields that it draws or tells on hovering.
Numbers are rounded to four digits: nobody sees the fifth, and files are a third of the size.

Foreign text – labels of models and samplings – appears in values only, never in a field's name or an expression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import UsageError

Row = Mapping[str, Any]
Spec = dict[str, Any]

_LOGARITHMIC_FROM = 30
"""When the greatest value is so many times the smallest, a straight scale shows the small ones as nothing …"""
_TICKS_LOGARITHMIC_FROM = 10
"""… and the ticks of the small ones lie upon one another."""
_DIGITS = 4
_HEIGHT = 220
_ROW_HEIGHT = 30
_TELEPHONE, _SYMBOL, _LETTER = 330, 30, 7
"""Pixels: what a telephone leaves for a legend, what a symbol and the gap before the next take, and a wide letter."""
_ROWS, _MARKS, _SETTINGS = "rows", "marks", "settings"
"""What data are called in a spec."""
BETWEEN = " · "
"""Between the parts of what a setting is called."""
_NAMES = ("setting", "hue", "dash")
"""The fields that name a row."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A direction of a chart: the field that is drawn along it, what it is called, with its unit."""

    field: str
    title: str
    format: str = ""
    """As d3-format writes it, for axis and hovering."""
    ordinal: bool = False
    """Values that have an order at most, and no distances; else they are numbers."""
    zero: bool = False
    """Whether the axis begins at 0: for shares and sizes; times may be far from it."""
    ticks: tuple[float, ...] = ()
    """Where the ticks are, if not anywhere."""


@dataclass(frozen=True, slots=True)
class Series:
    """How rows are told apart: by colour in the field `hue`, by dashes in the field `dash`, in these orders.

    Every row has its whole name in the field `setting`.
    """

    hues: tuple[str, ...] = ()
    dashes: tuple[str, ...] = ()


def curves(rows: Sequence[Row], x: Axis, y: Axis, series: Series, *, band: bool) -> Spec:
    """A line per setting through its points, in the order of x; with `band` an area between the fields `low` and
    `high` of each."""
    alt = _altair()
    base = alt.Chart().encode(x=_position(alt.X, x, rows), **_told_apart(series, as_lines=True))
    line = base.mark_line(point=True).encode(
        y=_position(alt.Y, y, rows, with_band=band), **_dashed(series), tooltip=_tooltip([x, y], band=band)
    )
    if not band:
        return _spec(rows, line)
    low = Axis("low", y.title, y.format, zero=y.zero)
    area = base.mark_area(style="band").encode(y=_position(alt.Y, low, rows, with_band=True), y2="high")
    return _spec(rows, alt.layer(area, line))


def distributions(rows: Sequence[Row], x: Axis, y: Axis, series: Series) -> Spec:
    """A staircase per setting: the share of values up to each."""
    alt = _altair()
    chart = alt.Chart().mark_line(interpolate="step-after", strokeWidth=1.5)
    return _spec(
        rows,
        chart.encode(
            x=_position(alt.X, x, rows),
            y=_position(alt.Y, y, rows),
            **_told_apart(series, as_lines=True),
            **_dashed(series),
            tooltip=_tooltip([x, y]),
        ),
    )


def scatter(rows: Sequence[Row], x: Axis, y: Axis, series: Series, marks: Sequence[Row] = ()) -> Spec:
    """A small point per row; `marks` are vertical lines at the field of x, each with a short `text` at its top."""
    alt = _altair()
    points = alt.Chart().mark_point(size=20, opacity=0.6)
    chart = points.encode(
        x=_position(alt.X, x, rows), y=_position(alt.Y, y, rows), **_told_apart(series), tooltip=_tooltip([x, y])
    )
    if not marks:
        return _spec(rows, chart)
    upright = _looked_up(alt.Chart(alt.NamedData(_MARKS))).encode(
        x=alt.X(x.field, type="quantitative"), **_told_apart(series)
    )
    lines = upright.mark_rule(strokeDash=[3, 3], opacity=0.7)
    names = upright.mark_text(align="left", baseline="top", dx=3, fontSize=10).encode(y=alt.value(0), text="text:N")
    return _spec(rows, alt.layer(lines, names, chart), marks=marks)


def dots(rows: Sequence[Row], intervals: Sequence[Row], x: Axis, settings: Sequence[str], series: Series) -> Spec:
    """A line of dots per setting, one below the other; `intervals` are drawn behind them from `low` to `high`."""
    alt = _altair()
    places = _one_below_the_other(settings)
    across = _position(alt.X, x, [*rows, *({x.field: row[end]} for row in intervals for end in ("low", "high"))])
    points = alt.Chart().mark_point(size=45, opacity=0.7)
    chart = points.encode(
        x=across, y=places, **_told_apart(series), tooltip=[alt.Tooltip("launch:Q", title="launch"), *_tooltip([x])]
    )
    if not intervals:
        return _spec(rows, chart, height=_ROW_HEIGHT * len(settings))
    spans = _looked_up(alt.Chart(alt.NamedData(_MARKS))).mark_rule(strokeWidth=8, opacity=0.25)
    behind = spans.encode(x=alt.X("low", type="quantitative"), x2="high", y=places, **_told_apart(series))
    return _spec(rows, alt.layer(behind, chart), height=_ROW_HEIGHT * len(settings), marks=intervals)


def stacked_bars(rows: Sequence[Row], x: Axis, settings: Sequence[str], parts: Sequence[str]) -> Spec:
    """A bar per setting made of its parts, in their order: rows have `setting`, `part`, its `place`, its `share` of
    the bar, and the field of x."""
    alt = _altair()
    return _spec(
        rows,
        alt.Chart()
        .mark_bar()
        .encode(
            x=alt.X(x.field, type="quantitative", title=x.title, stack="zero", axis=_axis(x)),
            y=_one_below_the_other(settings),
            color=alt.Color("part", type="nominal", scale=alt.Scale(domain=list(parts))),
            order=alt.Order("place", type="quantitative"),
            tooltip=[
                alt.Tooltip("setting:N", title="setting"),
                alt.Tooltip("part:N", title="phase"),
                *_tooltip([x], setting=False),
                alt.Tooltip("share:Q", title="share", format=".1%"),
            ],
        ),
        height=_ROW_HEIGHT * len(settings),
    )


def trade_off(rows: Sequence[Row], x: Axis, y: Axis, series: Series, told: Sequence[Axis]) -> Spec:
    """A point per setting with its intervals (`x_low` `x_high` `y_low` `y_high`): full where `front` is true, else
    hollow; those with a `text` are named, at the side and height where there is room (`left`, `above`). `told` on
    hovering."""
    alt = _altair()
    ends = [("x", "y"), ("x_low", "y_low"), ("x_high", "y_high")]
    reach = [
        {x.field: row.get(one, row[x.field]), y.field: row.get(other, row[y.field])}
        for row in rows
        for one, other in ends
    ]
    base = alt.Chart().encode(x=_position(alt.X, x, reach), y=_position(alt.Y, y, reach), **_told_apart(series))
    layers = []
    if any(row.get("x_low") is not None for row in rows):
        layers.append(base.mark_rule(opacity=0.45).encode(x=alt.X("x_low", type="quantitative"), x2="x_high"))
    if any(row.get("y_low") is not None for row in rows):
        layers.append(base.mark_rule(opacity=0.45).encode(y=alt.Y("y_low", type="quantitative"), y2="y_high"))
    for test, filled in (("datum.front", True), ("!datum.front", False)):
        some = base.transform_filter(test).mark_point(size=90, strokeWidth=2, filled=filled)
        layers.append(some.encode(tooltip=_tooltip([x, y, *told])))
    names = base.transform_filter("isValid(datum.text)").mark_text(
        align=alt.ExprRef("datum.left ? 'right' : 'left'"),
        dx=alt.ExprRef("datum.left ? -8 : 8"),
        dy=alt.ExprRef("datum.above ? -9 : 11"),
        fontWeight="bold",
    )
    return _spec(rows, alt.layer(*layers, names.encode(text="text:N")), height=300)


def _altair() -> Any:
    try:
        import altair as alt
    except ImportError:
        raise UsageError("charts", "altair is not installed", "pip install 'instruct-harness[charts]'") from None
    return alt


def _spec(rows: Sequence[Row], chart: Any, height: Any = _HEIGHT, marks: Sequence[Row] = ()) -> Spec:
    """The chart as a dictionary, as wide as what it stands in, with its rows beside it: altair need not look at them.

    What settings are called is said once, and looked up by their number.
    """
    alt = _altair()
    chart = _looked_up(chart.properties(data=alt.NamedData(_ROWS), width="container", height=height))
    spec: Spec = chart.to_dict()
    spec.pop("config", None)  # of altair's own theme
    spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    names = list(dict.fromkeys(_name(row) for row in (*rows, *marks)))
    numbers = {name: number for number, name in enumerate(names)}
    spec["datasets"] = {
        _SETTINGS: [{"s": number, **dict(name)} for name, number in numbers.items()],
        _ROWS: _plainly(rows, numbers),
        **({_MARKS: _plainly(marks, numbers)} if marks else {}),
    }
    return spec


def _looked_up(chart: Any) -> Any:
    """The chart with the names of settings in its rows."""
    alt = _altair()
    names = alt.LookupData(data=alt.NamedData(_SETTINGS), key="s", fields=list(_NAMES))
    return chart.transform_lookup(lookup="s", from_=names)


def _name(row: Row) -> tuple[tuple[str, Any], ...]:
    return tuple((field, row[field]) for field in _NAMES if field in row)


def _plainly(rows: Sequence[Row], numbers: Mapping[Any, int]) -> list[dict[str, Any]]:
    return [
        {"s": numbers[_name(row)], **{name: _plain(value) for name, value in row.items() if name not in _NAMES}}
        for row in rows
    ]


def _plain(value: Any) -> Any:
    """A value as JSON has it, numbers rounded; what is absent is null."""
    if isinstance(value, str | bool | int) or value is None:
        return value
    number = float(value)
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None


def _position(channel: Any, axis: Axis, rows: Sequence[Row], *, with_band: bool = False) -> Any:
    """Where values lie along an axis. What the upright axis shows is in the title of the chart: there is room for a
    title of its own on no telephone."""
    alt = _altair()
    title = axis.title if channel is alt.X else None
    if axis.ordinal:
        order = list(dict.fromkeys(row[axis.field] for row in rows))
        return channel(axis.field, type="ordinal", title=title, sort=order)
    fields = [axis.field, *(["low", "high"] if with_band else [])]
    values = [float(row[name]) for row in rows for name in fields if row.get(name) is not None]
    limit = _TICKS_LOGARITHMIC_FROM if axis.ticks else _LOGARITHMIC_FROM
    kind = {"type": "log"} if not axis.zero and _ratio(values) >= limit else {"zero": axis.zero}
    room = {"nice": False, "padding": 12} if axis.ticks else {}
    return channel(axis.field, type="quantitative", title=title, scale=alt.Scale(**kind, **room), axis=_axis(axis))


def _axis(axis: Axis) -> Any:
    alt = _altair()
    ticks = {"values": list(axis.ticks)} if axis.ticks else {"tickCount": 5}
    return alt.Axis(**ticks, **({"format": axis.format} if axis.format else {}))


def _one_below_the_other(settings: Sequence[str]) -> Any:
    """A row per setting, what it is called on a line for each of its parts: on one it would be cut off before it tells
    anybody apart."""
    alt = _altair()
    lines = alt.Axis(labelExpr=f"split(datum.label, '{BETWEEN}')", labelLineHeight=12)
    return alt.Y("setting", type="nominal", sort=list(settings), title=None, axis=lines)


def _ratio(values: Sequence[float]) -> float:
    """The greatest over the smallest; 1 where they have no logarithms."""
    known = [value for value in values if math.isfinite(value)]
    return max(known) / min(known) if known and min(known) > 0 else 1.0


def _told_apart(series: Series, *, as_lines: bool = False) -> dict[str, Any]:
    alt = _altair()
    channels: dict[str, Any] = {"detail": alt.Detail("setting", type="nominal")}
    if series.hues:
        scale, legend = alt.Scale(domain=list(series.hues)), _legend(series.hues, as_lines=as_lines)
        channels["color"] = alt.Color("hue", type="nominal", scale=scale, legend=legend)
    return channels


def _dashed(series: Series) -> dict[str, Any]:
    alt = _altair()
    if not series.dashes:
        return {}
    scale, legend = alt.Scale(domain=list(series.dashes)), _legend(series.dashes, as_lines=True)
    return {"strokeDash": alt.StrokeDash("dash", type="nominal", scale=scale, legend=legend)}


def _legend(names: Sequence[str], *, as_lines: bool) -> Any:
    """With as many names in a row as a telephone has room for."""
    columns = _TELEPHONE // (_SYMBOL + _LETTER * max(map(len, names)))
    return _altair().Legend(columns=max(1, columns), **({"symbolType": "stroke"} if as_lines else {}))


def _tooltip(axes: Sequence[Axis], *, band: bool = False, setting: bool = True) -> list[Any]:
    alt = _altair()
    told = [alt.Tooltip("setting", type="nominal")] if setting else []
    for axis in axes:
        kind = "ordinal" if axis.ordinal else "quantitative"
        shown = {"format": axis.format} if axis.format else {}
        told.append(alt.Tooltip(axis.field, type=kind, title=axis.title, **shown))
    if band:
        shown = {"format": axes[-1].format} if axes[-1].format else {}
        told += [alt.Tooltip(end, type="quantitative", title=f"95 % {end}", **shown) for end in ("low", "high")]
    return told
