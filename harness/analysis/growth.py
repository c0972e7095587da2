"""What a growing context costs: slopes of times and memory against the tokens in it.

Every turn of a conversation stands on a longer context than the one before. Within each conversation of a launch a
straight line is fitted by least squares, one slope for all conversations of the launch, each with a level of its own:
the conversations are fixed, as for every speed, and what they differ in besides length is no growth. Repeats of a turn
enter as their median, so that a stall in one of them moves nothing. Least squares rather than the median of all
pairwise slopes (Theil, Sen): its cost grows with the turns, not with their square, it is the average rate of change
also where the true curve bends, and what outliers remain widen the interval over launches as they should.

The launches are the sample: the value is the mean of their slopes, with a t-interval. With one launch it is the usual
interval of least squares, from the turns about the line, and speaks of this launch only (`basis`). Each slope is taken
by itself: where new tokens grow along with the context, TTFT's slopes against both are two views of one growth.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev

import numpy as np
import pandas as pd

from harness.analysis.arrays import SETTING, View, groups, means, view
from harness.analysis.frames import Run
from harness.analysis.stats import Estimate, t_quantile
from harness.analysis.tables import Row, setting_of, table

GROWING = ("ttft_s", "tpot_s", "peak_memory_bytes", "host_rss_bytes", "kv_cache_bytes")
CONTEXTS_FOR_A_SLOPE = 3
"""Any two points lie on a line."""
AGAINST = {"per_1k_context": "prompt_tokens", "per_1k_new": "new_tokens", "per_turn": "turn_index"}
"""Column → what the metric is set against: per thousand tokens of prompt, history included; per thousand that were
not served from the cache, for TTFT only; per turn."""


def growth(run: Run) -> pd.DataFrame:
    """One row per model × sampling × concurrency × metric of `GROWING` that has a slope.

    Columns: run_id model sampling concurrency metric; for every key of `AGAINST` the slope, in the metric's unit, and
    its _low _high; basis and launches of the slope against the context; context_low context_high, between which it
    was seen.
    """
    rows = [
        {**setting_of(run.run_id, values), **row}
        for values, turns in groups(run.turns, SETTING, view(run))
        for row in _rows(_medians(turns.done))
    ]
    slopes = (f"{column}{end}" for column in AGAINST for end in ("", "_low", "_high"))
    return table(rows, ["run_id", *SETTING, "metric", *slopes, "basis", "launches", "context_low", "context_high"])


def slope(points: pd.DataFrame, y: str, x: str) -> Estimate:
    """The slope of a column against another, from one row per launch and place; `n` counts launches.

    Looks at places that are known in every launch. No value below `CONTEXTS_FOR_A_SLOPE` distinct x, or where no
    conversation has two of them.
    """
    known = (points[y].notna() & points[x].notna()).to_numpy()
    launch, _ = pd.factorize(points["launch"].to_numpy()[known])
    place, _ = pd.factorize(points["place"].to_numpy()[known])
    everywhere = np.bincount(place)[place] == launch.max(initial=-1) + 1
    xs, ys = (points[name].to_numpy(dtype=np.float64)[known][everywhere] for name in (x, y))
    if len(pd.unique(xs)) < CONTEXTS_FOR_A_SLOPE:
        return Estimate(None)
    launch = launch[everywhere]
    talk, talks = pd.factorize(points["conversation"].to_numpy()[known][everywhere])
    level, levels = pd.factorize(launch * len(talks) + talk)
    across, up = xs - means(level, xs), ys - means(level, ys)
    squares = np.bincount(launch, weights=across**2)
    if not (squares > 0).all():
        return Estimate(None)
    slopes = (np.bincount(launch, weights=across * up) / squares).tolist()
    if len(slopes) > 1:
        middle = fmean(slopes)
        reach = t_quantile(len(slopes) - 1) * stdev(slopes) / math.sqrt(len(slopes))
        return Estimate(middle, middle - reach, middle + reach, "launches", len(slopes))
    degrees = len(xs) - len(levels) - 1
    if degrees < 1:
        return Estimate(slopes[0], n=1)
    rest = float(((up - slopes[0] * across) ** 2).sum())
    reach = t_quantile(degrees) * math.sqrt(rest / degrees / float(squares[0]))
    return Estimate(slopes[0], slopes[0] - reach, slopes[0] + reach, "one launch", 1)


def _medians(done: View) -> pd.DataFrame:
    """One row per launch and place (which turn of which conversation): medians over its repeats. A prompt at the limit,
    to which nothing was generated, cost nothing."""
    done = done.where(done["completion_tokens"] > 0)
    names = (*GROWING, "prompt_tokens", "turn_index", "launch", "conversation", "place")
    turns = pd.DataFrame({name: done[name] for name in names})
    turns["new_tokens"] = done["prompt_tokens"] - done["cached_tokens"]
    once = not turns.duplicated(["launch", "place"]).any()
    return turns if once else turns.groupby(["launch", "place"], as_index=False).median()


def _rows(points: pd.DataFrame) -> list[Row]:
    rows = []
    for metric in GROWING:
        found = {
            column: slope(points, metric, x) for column, x in AGAINST.items() if x != "new_tokens" or metric == "ttft_s"
        }
        context = found["per_1k_context"]
        if context.value is None:
            continue
        seen = points.loc[points[metric].notna(), "prompt_tokens"]
        rows.append(
            {
                "metric": metric,
                **{name: value for column, each in found.items() for name, value in _scaled(column, each).items()},
                "basis": context.basis,
                "launches": context.n,
                "context_low": float(np.nanmin(seen)),
                "context_high": float(np.nanmax(seen)),
            }
        )
    return rows


def _scaled(column: str, estimate: Estimate) -> dict[str, float | None]:
    unit = 1 if column == "per_turn" else 1000
    ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
    return {f"{column}{end}": None if value is None else unit * value for end, value in ends.items()}
