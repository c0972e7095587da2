"""The charts of a run: which there are, what each shows, and over what its intervals speak.

A chart that would be empty, or would show one point where it promises a curve, is not made. What models said shows in
checks, repetition and truncation only where it means something: not of replies forced to a length, nor of random
weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.analysis.arrays import SETTING
from harness.analysis.frames import Run
from harness.analysis.growth import CONTEXTS_FOR_A_SLOPE
from harness.analysis.measures import MEASURES
from harness.analysis.notes import behaviour_caption, speed_caption
from harness.analysis.pareto import BALANCED
from harness.analysis.phases import by_phase
from harness.analysis.points import Points, along_context, distribution, launch_medians, launch_starts, over_time
from harness.analysis.response import response
from harness.analysis.summary import by_setting, by_turn
from harness.analysis.sweep import EACH, NAMED
from harness.analysis.tradeoffs import trade_offs
from harness.metrics import PHASES
from harness.report.plots import (
    Axis,
    Spec,
    curves,
    distributions,
    dots,
    scatter,
    stacked_bars,
    trade_off,
)
from harness.report.series import Labels, drawn, records, text, times
from harness.report.units import count


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart."""

    name: str
    """Unique within a run, and fit to be a file's name: `growth-ttft_s`."""
    title: str
    """With the unit."""
    caption: str
    """What is shown, and what its intervals mean."""
    spec: Spec
    """Vega-Lite, as wide as what it stands in, without title and colours: `themes.THEMES` has those."""


def charts(run: Run) -> list[Chart]:
    """The charts of a run, in the order in which a report shows them. Raises UsageError without the extra `charts`."""
    labels = Labels(by_setting(run))
    return [
        chart
        for kind in (_trade_off, _responses, _distributions, _growth, _phases, _over_time, _launches)
        for chart in kind(run, labels)
    ]


_QUALITY, _SPEED, _MEMORY = "checks_rate", "tpot_s_p50", "memory_bytes"
_PERCENT = ".0%"
_NUMBER = ",.4~r"
"""Four digits and no exponent, as d3-format says it."""
_REASONS = {_QUALITY: "most checks passed", _SPEED: "fastest", _MEMORY: "least memory", BALANCED: "balanced"}
_MEMORIES = ("peak_memory_bytes", "kv_cache_bytes", "host_rss_bytes")
"""What grows with the context, as near to it as it was measured: the first that is known."""
_MOST_BARS = 40
"""Rows of a chart with a row per setting."""
_MOST_BANDS = 3
"""Areas that may lie upon one another."""
_MOST_TICKS = 12
_FEWEST_IN_TIME = 10
"""Fewer points than these show no course of time."""


def _chosen(points: Points) -> str:
    """Which turns are shown, if not all of them."""
    if len(points.frame) == points.turns:
        return ""
    return f" {len(points.frame)} of {points.turns} turns are drawn, evenly chosen from their order."


def _trade_off(run: Run, labels: Labels) -> Iterator[Chart]:
    found = trade_offs(run)
    settings = found.settings
    counted = [name for name in found.counted if settings[name].nunique() > 1]
    if _SPEED not in counted or len(counted) < 2 or not found.recommended:
        return
    y, y_field = (_QUALITY, "quality") if _QUALITY in counted else (_MEMORY, "mib")
    placed = settings[settings[[_SPEED, y]].notna().all(axis=1)]
    middle = (float(placed[_SPEED].min()) + float(placed[_SPEED].max())) / 2
    rows: list[dict[str, Any]] = []
    chosen: list[str] = []
    for number, row in zip(placed.index, records(placed), strict=True):
        reasons = found.recommended.get(number, ())
        why = "best at everything" if {*found.counted} <= {*reasons} else ", ".join(_REASONS[name] for name in reasons)
        named = labels(row)
        rows.append(
            {
                **named,
                "ms": times(row[_SPEED], 1000),
                "x_low": times(row["tpot_s_low"], 1000),
                "x_high": times(row["tpot_s_high"], 1000),
                "quality": row[_QUALITY],
                "mib": times(row[_MEMORY], 2**-20),
                "y_low": row["checks_low"] if y == _QUALITY else None,
                "y_high": row["checks_high"] if y == _QUALITY else None,
                "front": row["front"],
                "text": named["setting"] if why else None,
                "left": float(row[_SPEED]) > middle,
            }
        )
        chosen += [f"{named['setting']} ({why})"] if why else []
    for side in (True, False):  # names one below the other lie on both sides of their points
        beside = [row for row in rows if row["text"] and row["left"] is side]
        for place, row in enumerate(sorted(beside, key=lambda row: -row[y_field])):
            row["above"] = place % 2 == 0
    speed = Axis("ms", drawn("tpot_s")[0], _NUMBER)
    quality, memory = Axis("quality", "Checks passed", _PERCENT), Axis("mib", "Peak memory (MiB)", _NUMBER)
    sides = (quality, [memory]) if y == _QUALITY else (memory, [])
    anyone = any(BALANCED in reasons for reasons in found.recommended.values())
    balanced = "Balanced gives up least where it gives up most. " if anyone else ""
    names = {_QUALITY: "checks passed", _SPEED: "time per output token", _MEMORY: "memory"}
    yield Chart(
        "trade-off",
        f"{sides[0].title} against time per output token (ms)",
        f"A point per setting. Full points are the Pareto front by {', '.join(names[name] for name in found.counted)}: "
        f"nobody beats them in everything. Of these stand out: {', '.join(chosen)}. {balanced}"
        f"Lines are 95 % intervals. {behaviour_caption(run)} {speed_caption(run)}",
        trade_off(rows, speed, sides[0], labels.series, sides[1]),
    )


_RESPONSES = (
    *("checks_rate", "truncated_rate", "repetition", "distinct_2", "longest_loop", "completion_tokens"),
    *("agreement_rate", "divergence_rate", "sampling_step_s", "tpot_s", "e2e_s"),
)
"""The measures that are drawn: of those that say the same in another way, one."""


def _responses(run: Run, _: Labels) -> Iterator[Chart]:
    table = response(run)
    table = table[~table["parameter"].isin([NAMED, EACH])]
    for parameter, curve in table.groupby("parameter", sort=False):
        labels = Labels(curve, ("model", "over", "concurrency"))
        numeric = bool(curve["number"].notna().all())
        values: list[Any] = [row["number"] if numeric else _said(row["value"]) for row in records(curve)]
        ticks = tuple(sorted(set(values))) if numeric else ()
        x = Axis("value", str(parameter), ",.12~r" if numeric else "", ordinal=not numeric, ticks=ticks)
        for measure in (MEASURES[name] for name in _RESPONSES):
            known = curve.assign(at=values)[curve[measure.name].notna()]
            if known["at"].nunique() < 2 or known[measure.name].nunique() < 2:
                continue
            unit, factor = {"s": (" (ms)", 1000.0), "units": (" (units)", 1.0)}.get(measure.unit, ("", 1.0))
            rows = [{**labels(row), "value": row["at"], **_point(row, measure.name, factor)} for row in records(known)]
            band, worth = _banded(run, rows, measure.sample)
            y = Axis("y", measure.title, _PERCENT if measure.unit == "ratio" else _NUMBER, zero=measure.unit != "s")
            yield Chart(
                f"response-{parameter}-{measure.name}",
                f"{measure.title}{unit} by {parameter}",
                f"{_sentence(measure.definition)} {_over(known)}{worth}",
                curves(rows, x, y, labels.series, band=band),
            )


def _said(value: str | None) -> str:
    return "not set" if value is None else text(value)


def _sentence(definition: str) -> str:
    return f"{definition[0].upper()}{definition[1:]}."


def _over(curve: pd.DataFrame) -> str:
    over = [text(each) for each in curve["over"].unique() if each]
    return f"Mean over {'; or over '.join(over)}. " if over else ""


def _banded(run: Run, rows: Sequence[Mapping[str, Any]], sample: str) -> tuple[bool, str]:
    """Whether intervals are drawn – not round so many lines that areas would leave nothing to see – and what they are
    worth."""
    if not any(row["low"] is not None for row in rows):
        return False, "No intervals."
    if len({row["setting"] for row in rows}) > _MOST_BANDS:
        return False, "Intervals are in the tables: there are too many lines."
    return True, speed_caption(run) if sample == "launches" else behaviour_caption(run)


def _point(row: Mapping[str, Any], name: str, factor: float, value: str = "") -> dict[str, float | None]:
    """A value, called `name` or `value`, and the ends of its interval where the table has them."""
    ends = {"y": row[value or name], "low": row.get(f"{name}_low"), "high": row.get(f"{name}_high")}
    return {end: times(found, factor) for end, found in ends.items()}


def _distributions(run: Run, labels: Labels) -> Iterator[Chart]:
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        points = distribution(run, metric)
        if points.frame["value"].nunique() < 2:
            continue
        title, factor = drawn(metric)
        rows = [{**labels(row), "value": factor * row["value"], "share": row["share"]} for row in records(points.frame)]
        yield Chart(
            f"distribution-{metric}",
            f"{title}: share of turns at or below",
            f"The answered turns of each setting, over all launches and repeats; no intervals.{_chosen(points)}",
            distributions(
                rows, Axis("value", title, _NUMBER), Axis("share", "turns", _PERCENT, zero=True), labels.series
            ),
        )


def _growth(run: Run, labels: Labels) -> Iterator[Chart]:
    turns = by_turn(run)
    memory = next((name for name in _MEMORIES if turns[f"{name}_p50"].notna().any()), None)
    for metric in ("ttft_s", "tpot_s", *([memory] if memory else [])):
        title, factor = drawn(metric)
        known = turns[turns[f"{metric}_p50"].notna()]
        if known["turn_index"].nunique() > 1:
            rows = [
                {**labels(row), "turn": row["turn_index"], **_point(row, metric, factor, f"{metric}_p50")}
                for row in records(known)
            ]
            band, worth = _banded(run, rows, "launches")
            yield Chart(
                f"growth-{metric}",
                f"{title} by turn",
                f"p50 of the turns at each position, from 0. {worth}",
                curves(rows, _turns(known), Axis("y", title, _NUMBER), labels.series, band=band),
            )
        points = along_context(run, metric)
        if points.frame["context"].nunique() >= CONTEXTS_FOR_A_SLOPE:
            yield Chart(
                f"context-{metric}",
                f"{title} by context (tokens)",
                f"A point per answered turn, against the tokens of its prompt, history included.{_chosen(points)}",
                scatter(
                    [
                        {**labels(row), "context": row["context"], "value": factor * row["value"]}
                        for row in records(points.frame)
                    ],
                    Axis("context", "context (tokens)", _NUMBER),
                    Axis("value", title, _NUMBER),
                    labels.series,
                ),
            )


def _turns(turns: pd.DataFrame) -> Axis:
    positions = tuple(sorted(int(turn) for turn in turns["turn_index"].unique()))
    return Axis("turn", "turn", "d", ticks=positions if len(positions) <= _MOST_TICKS else ())


def _phases(run: Run, labels: Labels) -> Iterator[Chart]:
    phases = by_phase(run)
    known = records(phases[phases["e2e_s_mean"].notna()].head(_MOST_BARS))
    if not known:
        return
    rows = [
        {
            **labels(row),
            "part": name.removesuffix("_s"),
            "place": place,
            "share": row[f"{name}_share"],
            "ms": 1000 * row[f"{name}_share"] * row["e2e_s_mean"],
        }
        for row in known
        for place, name in enumerate(PHASES)
    ]
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    yield Chart(
        "phases",
        "Where the time of a turn goes (ms)",
        "Mean over the answered turns: unlike medians, means add up. Prefill ends with the first id: it holds the "
        f"first sample and one sync. No intervals.{_first(known, phases)}",
        stacked_bars(
            rows,
            Axis("ms", "mean time of a turn (ms)", _NUMBER),
            settings,
            [name.removesuffix("_s") for name in PHASES],
        ),
    )


def _first(shown: Sized, of: pd.DataFrame) -> str:
    return f" The first {len(shown)} of {len(of)} settings." if len(shown) == _MOST_BARS < len(of) else ""


def _over_time(run: Run, labels: Labels) -> Iterator[Chart]:
    points = over_time(run, "tpot_s")
    if len(points.frame) < _FEWEST_IN_TIME:
        return
    title, factor = drawn("tpot_s")
    starts = launch_starts(run)
    marks = [
        {**labels.model(row["model"]), "second": row["second"], "text": count(row["launch"])} for row in records(starts)
    ]
    yield Chart(
        "over-time",
        f"{title} over the run",
        "A point per answered turn, at the time since the run's first one began. Dashed lines are the starts of "
        f"launches, with their numbers: a level that creeps between them is a drift.{_chosen(points)}",
        scatter(
            [{**labels(row), "second": row["second"], "value": factor * row["value"]} for row in records(points.frame)],
            Axis("second", "time since the first turn (s)", _NUMBER, zero=True),
            Axis("value", title, _NUMBER),
            labels.series,
            marks if len(marks) > 1 else (),
        ),
    )


def _launches(run: Run, labels: Labels) -> Iterator[Chart]:
    settings = by_setting(run)
    for metric in ("ttft_s", "tpot_s"):
        medians = launch_medians(run, metric)
        if medians["launch"].nunique() < 2:
            continue
        title, factor = drawn(metric)
        shown = settings.head(_MOST_BARS)
        rows = [
            {**labels(row), "launch": int(row["launch"]), "value": factor * row["value"]}
            for row in records(medians.merge(shown[list(SETTING)], on=list(SETTING)))
        ]
        intervals = [
            {**labels(row), "low": factor * row[f"{metric}_low"], "high": factor * row[f"{metric}_high"]}
            for row in records(shown)
            if row[f"{metric}_low"] is not None
        ]
        yield Chart(
            f"launches-{metric}",
            f"{title} by launch",
            "A dot per launch: the p50 of the turns that every launch has answered. Bars are 95 % intervals over "
            f"launches.{_first(shown, settings)}",
            dots(
                rows,
                intervals,
                Axis("value", title, _NUMBER),
                list(dict.fromkeys(row["setting"] for row in rows)),
                labels.series,
            ),
        )
