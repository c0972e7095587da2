"""The points of pictures: single turns, launches and positions, each a frame with a row per point.

A picture of a hundred thousand turns cannot show them all, and a file that holds them all cannot be opened. Above
`MOST_POINTS` some are left out, always the same ones: those that stay lie evenly among the others in the order of the
picture, the first and the last of each setting with them. `Points.turns` tells how many there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.analysis.arrays import SETTING, View, by_launch, groups, view
from harness.analysis.frames import Run
from harness.analysis.stats import median

MOST_POINTS = 1000
"""Of one picture, more or less: more of them lie upon one another on any screen."""


@dataclass(frozen=True, slots=True)
class Points:
    """The points of one picture."""

    frame: pd.DataFrame
    turns: int
    """Of how many turns they are, or were chosen."""


def evenly(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many of the positions 0 … count − 1, evenly apart, the first and the last among them (`most` ≥ 2)."""
    if count <= most:
        return np.arange(count, dtype=np.int64)
    return np.linspace(0, count - 1, most).round().astype(np.int64)


def distribution(run: Run, metric: str) -> Points:
    """How the values of a metric are distributed over the answered turns of each setting: the empirical distribution.

    Columns: model sampling concurrency; `value` in ascending order, and the `share` of turns at or below it.
    """
    parts, turns = [], 0
    for keys, done, most in _settings(run):
        ordered = np.sort(done.known(metric))
        turns += len(ordered)
        kept = evenly(len(ordered), most)
        parts.append(_part(keys, value=ordered[kept], share=(kept + 1) / max(len(ordered), 1)))
    return Points(pd.concat(parts, ignore_index=True), turns)


def along_context(run: Run, metric: str) -> Points:
    """A metric of every answered turn against the context it stands on.

    Columns: model sampling concurrency; `context`, the tokens of its prompt, ascending, and `value`.
    """
    parts, turns = [], 0
    for keys, done, most in _settings(run):
        known = done.where(~np.isnan(done[metric]) & ~np.isnan(done["prompt_tokens"]) & (done["completion_tokens"] > 0))
        turns += len(known)
        context, value = known["prompt_tokens"], known[metric]
        kept = np.lexsort((value, context))[evenly(len(known), most)]
        parts.append(_part(keys, context=context[kept], value=value[kept]))
    return Points(pd.concat(parts, ignore_index=True), turns)


def over_time(run: Run, metric: str) -> Points:
    """A metric of every answered turn against the time since the run's first one began.

    Columns: model sampling concurrency; `second`, ascending, and `value`.
    """
    began = _seconds(run)
    parts, turns = [], 0
    for keys, done, most in _settings(run):
        known = done.where(~np.isnan(done[metric]) & ~np.isnan(began[done.rows]))
        turns += len(known)
        second = began[known.rows]
        kept = np.argsort(second, kind="stable")[evenly(len(known), most)]
        parts.append(_part(keys, second=second[kept], value=known[metric][kept]))
    return Points(pd.concat(parts, ignore_index=True), turns)


def launch_starts(run: Run) -> pd.DataFrame:
    """When the first measured turn of each launch began: model, launch, and `second` since the run's first one."""
    turns = run.turns[["model", "launch"]].assign(second=_seconds(run))
    began = turns.dropna().groupby(["model", "launch"], sort=False)["second"].min().reset_index()
    return began.sort_values("second", kind="stable", ignore_index=True)


def launch_medians(run: Run, metric: str) -> pd.DataFrame:
    """The median of each launch, over the turns that every launch has answered, as `summary.by_setting` takes them.

    Columns: model sampling concurrency launch, and `value`.
    """
    parts = []
    for keys, turns in groups(run.turns, SETTING, view(run)):
        medians = {launch: median(values) for launch, values in by_launch(turns.done, metric).items() if len(values)}
        parts.append(_part(keys, launch=list(medians), value=list(medians.values())))
    return pd.concat(parts, ignore_index=True)


def _settings(run: Run) -> Iterator[tuple[tuple[Any, ...], View, int]]:
    """(the values of `SETTING`, its answered turns, how many points it may have) of every setting."""
    found = list(groups(run.turns, SETTING, view(run)))
    most = max(2, MOST_POINTS // len(found))
    for keys, turns in found:
        yield keys, turns.done, most


def _part(keys: tuple[Any, ...], **columns: Any) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    for place, name in enumerate(SETTING):
        frame.insert(place, name, pd.Series([keys[place]] * len(frame), dtype="Int64" if place == 2 else "string"))
    return frame


def _seconds(run: Run) -> npt.NDArray[np.float64]:
    """When each row of `Run.turns` began, since the first of them; NaN where it never did."""
    began = run.turns["started_at"]
    seconds: npt.NDArray[np.float64] = (
        (began - began.min()).dt.total_seconds().to_numpy(dtype=np.float64, na_value=np.nan)
    )
    return seconds
